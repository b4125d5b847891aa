"""From a clone to a Hugging Face Space: ``python -m studio deploy --space USER/NAME``.

What goes up is listed here by name and ending. All else stays at home: runs, photos, the data
folder, secrets in ``.env``. Every failure is a sentence, and the same command then goes on: the Hub
keeps each large file that arrived whole, and a commit happens as a whole or not at all.
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from .safety.owner import MIN_PASSWORD

ROOT = Path(__file__).resolve().parent.parent
GOES_UP = (  # patterns below the root
    "README.md", "CONTRIBUTING.md", "LICENSE", "app.py", "requirements.txt",
    "diffusion/**/*.py", "diffusion/**/*.json",
    "studio/**/*.py", "studio/**/*.css", "studio/**/*.js", "studio/**/*.svg",
    "checkpoints/*.safetensors", "checkpoints/*.md",
    "docs/**/*.md", "docs/**/*.json", "docs/**/*.png", "docs/**/*.jpg",
    "docs/*.service",
)  # fmt: skip
OURS = "diffusion/denoiser.py"  # a Space that has this file is one of ours
OF_A_NEW_SPACE = {".gitattributes", "README.md"}
CODE = ("diffusion/", "studio/")  # where a file that is no longer here is removed from the Space
MAX_FILE = 200_000_000_000  # bytes that the Hub takes in one file
MAX_TEXT = 1_000_000  # bytes of a file in which secrets are looked for
SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{36,}|\bsk-[A-Za-z0-9_-]{32,}|\bAKIA[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
AGAIN = "Run the same command again to go on: what has arrived is kept."


def what_goes_up(root: Path) -> list[Path]:
    """The files of a Space, in order, relative to ``root``; no link, which could lead elsewhere."""
    found = {path for pattern in GOES_UP for path in root.glob(pattern)}
    files = [path.relative_to(root) for path in found if path.is_file() and not path.is_symlink()]
    return sorted(file for file in files if not any(map(_is_leftover, file.parts)))


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def check(root: Path, files: Sequence[Path], *, password: str = "") -> None:
    """Raises ValueError with a sentence for each thing that the Hub, or its owner, would regret."""
    faults = front_matter_faults(root)
    own = [password, *(os.environ.get(name, "") for name in ("ADMIN_PASSWORD", "HF_TOKEN"))]
    own = [value for value in own if len(value) >= MIN_PASSWORD]  # shorter ones are words
    for file in files:
        size = (root / file).stat().st_size
        if size > MAX_FILE:
            faults.append(f"{file} has {size / 1e9:.0f} GB; the Hub takes {MAX_FILE / 1e9:.0f} GB.")
        if size > MAX_TEXT:
            continue
        text = (root / file).read_text(encoding="utf-8", errors="ignore")
        if SECRET.search(text) or any(value in text for value in own):
            faults.append(f"{file} seems to contain a secret.")
    if not any(file.suffix == ".safetensors" for file in files):
        faults.append("There is no model in checkpoints/.")
    if faults:
        raise ValueError(" ".join(faults))


def front_matter_faults(root: Path) -> list[str]:
    """What is wrong with the lines at the top of README.md, by which the Hub runs a Space."""
    from huggingface_hub import metadata_load

    try:
        values = metadata_load(root / "README.md")
    except Exception:  # whatever the parser says, or no file
        values = None
    if not values:
        return ["README.md does not begin with the front matter of a Space."]
    faults = []
    if values.get("sdk") != "gradio":
        faults.append("In the front matter of README.md, sdk must be gradio.")
    if not (root / str(values.get("app_file"))).is_file():
        faults.append("In the front matter of README.md, app_file names no file.")
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(values.get("sdk_version"))):
        faults.append("In the front matter of README.md, sdk_version must be like 6.31.0.")
    if len(str(values.get("short_description", ""))) > 60:
        faults.append("In the front matter of README.md, short_description is over 60 letters.")
    return faults


def print_list(root: Path, files: Sequence[Path]) -> None:
    """Each file with its size, and the sum."""
    sizes = [(root / file).stat().st_size for file in files]
    for file, size in zip(files, sizes, strict=True):
        print(f"{_readable(size):>9}  {file.as_posix()}")
    print(f"{len(files)} files, {_readable(sum(sizes))}")


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def deploy(
    root: Path, files: Sequence[Path], space: str, *, private: bool, password: str = ""
) -> str:
    """Create or update a Space; returns its address. Raises ValueError with a sentence."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    with _as_sentences(space):
        api.whoami()
        try:
            info: Any = api.space_info(space)
        except RepositoryNotFoundError:
            api.create_repo(space, repo_type="space", space_sdk="gradio", private=private)
            info = None
    there: set[str] = {file.rfilename for file in info.siblings or []} if info else set()
    if info:
        _require_ours(space, info, there, private=private)
    names = [file.as_posix() for file in files]
    gone = sorted(there.difference(names))
    operations: list[Any] = [
        *(CommitOperationAdd(name, root / name) for name in names),
        *(CommitOperationDelete(name) for name in gone if name.startswith(CODE)),
    ]
    with _as_sentences(space):
        if password:
            api.add_space_secret(space, "ADMIN_PASSWORD", password)
        api.create_commit(space, operations, commit_message="Cat Diffusion", repo_type="space")
    return f"{api.endpoint}/spaces/{space}"


def _require_ours(space: str, info: Any, there: set[str], *, private: bool) -> None:
    if info.sdk not in (None, "gradio") or not (OURS in there or there <= OF_A_NEW_SPACE):
        raise ValueError(f"There is a Space {space} already, with another program. Choose a name.")
    if private and not info.private:
        raise ValueError(f"The Space {space} is public. Make it private in its settings first.")


@contextmanager
def _as_sentences(space: str) -> Iterator[None]:
    """Whatever goes wrong between here and the Hub is a ValueError with a sentence.

    The Hub's client raises errors of several libraries, by version and way of upload; only what the
    Hub itself answered has a status.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise ValueError(
            "There is no token of the Hub here. Run 'hf auth login', or set HF_TOKEN to a token "
            "that may write."
        ) from None
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, HfHubHTTPError):
            cause = cause.__cause__
        if cause is None:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            if isinstance(error, ValueError):  # an answer without a status
                raise ValueError(f"The Hub refused this ({said}).") from None
            raise ValueError(f"The way to the Hub broke off ({said}). {AGAIN}") from None
        status = cause.response.status_code
        said = " ".join((cause.server_message or "").split())[:300] or f"status {status}"
        raise ValueError(_answer(space, status, said)) from None


def _answer(space: str, status: int, said: str) -> str:
    owner = space.split("/")[0]
    if status == 401:
        return "The Hub does not know this token. Run 'hf auth login', or set HF_TOKEN anew."
    if status == 402:
        return f"The Hub asks {owner} for a paid plan ({said})."
    if status == 403:
        return f"This token may not write to {space} ({said}). It needs the right to write there."
    if status == 409:
        return f"The name {space} is taken ({said}). Choose another one."
    if status == 413:
        return f"The Hub does not take a file of this size ({said})."
    if status == 429:
        return f"The Hub asks for patience ({said}). {AGAIN}"
    if status >= 500:
        return f"The Hub is in trouble ({said}). {AGAIN}"
    return f"The Hub refused this ({said})."


def ask_password() -> str:
    """From ADMIN_PASSWORD or the keyboard, never from the command line, which others can read."""
    try:
        asked = "Password of the Admin tab: "
        password = os.environ.get("ADMIN_PASSWORD") or getpass.getpass(asked)
    except EOFError:
        raise ValueError("No password was typed. Set ADMIN_PASSWORD.") from None
    if len(password) < MIN_PASSWORD:
        raise ValueError(f"The password of the Admin tab needs {MIN_PASSWORD} characters.")
    return password


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def main(arguments: Sequence[str] | None = None, *, root: Path = ROOT) -> int:
    """Run a command; returns the exit code. Every mistake is one sentence."""
    parser = _Parser(prog="python -m studio", description="Put the page on the web.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("deploy", help="create or update a Hugging Face Space")
    command.add_argument("--space", required=True, metavar="USER/NAME")
    command.add_argument("--private", action="store_true", help="for you alone, if it is new")
    command.add_argument(
        "--admin", action="store_true",
        help="store ADMIN_PASSWORD as a secret: from the environment, or typed",
    )  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="only list what would go up")
    try:
        args = parser.parse_args(arguments)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]{0,95}", args.space, re.ASCII):
            raise ValueError("--space must be like USER/NAME.")
        files = what_goes_up(root)
        password = ask_password() if args.admin and not args.dry_run else ""
        check(root, files, password=password)
        print_list(root, files)
        if args.dry_run:
            print("Nothing was sent.")
            return 0
        print(deploy(root, files, args.space, private=args.private, password=password))
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0
