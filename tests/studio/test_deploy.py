"""A Space in one command: what goes up, and every way in which it can fail on its way to a server
that speaks the Hub's protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub import constants
from stand_in_hub import LARGE, TOKEN, StandInHub, StandInSpace

from studio.deploy import ROOT, main, what_goes_up

README = "---\ntitle: Cats\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n\n# Cats\n"
LEFT_AT_HOME = (
    ".env", "data/models/mine.safetensors", "runs/a/model.safetensors", "tests/test_a.py",
    "checkpoints/.new-0123456789abcdef.safetensors", "diffusion/__pycache__/denoiser.py",
    "studio/.gradio/key.py", "notes.txt", ".git/config", "checkpoints/in-training/x.safetensors",
)  # fmt: skip


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, to which the Hub's client of this process speaks as well."""
    with StandInHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def clone(tmp_path) -> Path:
    """A small program, and beside it what must stay at home."""
    root = tmp_path / "clone"
    contents = {
        "README.md": README.encode(),
        "app.py": b"print('a short miaow')\n",
        "requirements.txt": b"gradio\n",
        "diffusion/denoiser.py": b"# a denoiser\n",
        "studio/serve.py": b"# a server\n",
        "studio/page/assets/page.css": b"body {}\n",
        "checkpoints/one.safetensors": bytes([1]) * 2 * LARGE,
        "checkpoints/two.safetensors": bytes([2]) * 2 * LARGE,
        **dict.fromkeys(LEFT_AT_HOME, b"private"),
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def deploy(clone, capsys):
    """``python -m studio deploy`` of the clone; what it printed."""

    def deploy(*arguments: str) -> str:
        code = main(["deploy", "--space", *(arguments or ("me/cats",))], root=clone)
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return deploy


@pytest.fixture
def refused(clone, capsys):
    """The same where it fails; its one sentence."""

    def refused(*arguments: str) -> str:
        assert main(["deploy", "--space", *(arguments or ("me/cats",))], root=clone) == 1
        errors = capsys.readouterr().err
        (sentence,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
        assert TOKEN not in errors
        return sentence.removeprefix("Error: ")

    return refused


def start(hub: StandInHub, clone: Path) -> subprocess.Popen:
    """A deploy in a process of its own."""
    code = "import sys; from pathlib import Path; from studio.deploy import main; "
    code += "sys.exit(main(['deploy', '--space', 'me/cats'], root=Path(sys.argv[1])))"
    told = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(clone.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(clone)], cwd=ROOT, env={**os.environ, **told},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def contents(clone: Path) -> dict[str, bytes]:
    """What the Space of a clone has to hold."""
    return {path.as_posix(): (clone / path).read_bytes() for path in what_goes_up(clone)}


def test_only_the_program_goes_up(clone):
    (clone / "diffusion" / "link.py").symlink_to(clone / ".env")
    assert [path.as_posix() for path in what_goes_up(clone)] == [
        "README.md", "app.py", "checkpoints/one.safetensors", "checkpoints/two.safetensors",
        "diffusion/denoiser.py", "requirements.txt", "studio/page/assets/page.css",
        "studio/serve.py",
    ]  # fmt: skip


def test_every_module_of_this_program_goes_up():
    """And everything that is read beside them."""
    listed = set(what_goes_up(ROOT))
    for folder in ("diffusion", "studio"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix not in (".pyc", ".pyi"):
                assert path.relative_to(ROOT) in listed


def test_a_dry_run_lists_and_sends_nothing(hub, clone, deploy):
    said = deploy("me/cats", "--dry-run")
    assert [line.split()[-1] for line in said.splitlines()[:-2]] == list(contents(clone))
    assert said.splitlines()[-2:] == ["8 files, 400.1 kB", "Nothing was sent."]
    assert not hub.log


def test_a_space_is_made_and_brought_up_to_date(hub, clone, deploy, monkeypatch):
    monkeypatch.setenv("ADMIN_PASSWORD", "at least twelve")
    said = deploy("me/cats", "--private", "--admin")
    assert said.splitlines()[-1] == f"{hub.url}/spaces/me/cats"
    space = hub.spaces["me/cats"]
    assert space.private
    assert space.secrets == {"ADMIN_PASSWORD": "at least twelve"}
    assert {k: v for k, v in space.files.items() if k != ".gitattributes"} == contents(clone)

    (clone / "studio" / "serve.py").rename(clone / "studio" / "served.py")
    space.files["notes.md"] = b"written on the Hub"
    hub.log.clear()
    deploy()
    assert not [line for line in hub.log if line.startswith("PUT")]  # the models are there
    kept = {k: v for k, v in space.files.items() if k not in (".gitattributes", "notes.md")}
    assert kept == contents(clone)
    assert space.files["notes.md"] == b"written on the Hub"
    assert space.commits == 2
    deploy()
    assert space.commits == 2  # nothing was new


def test_a_deploy_that_was_killed_goes_on(hub, clone, deploy):
    hub.holds_after = 1
    run = start(hub, clone)
    assert hub.held.wait(60)
    while not hub.store:  # the other one is on its way
        assert run.poll() is None
    run.kill()
    run.communicate()
    assert hub.spaces["me/cats"].files == {".gitattributes": b""}
    (first,) = hub.store
    hub.holds_after = None
    hub.log.clear()
    deploy()
    sent = [line for line in hub.log if line.startswith("PUT")]
    assert len(sent) == 1
    assert first not in sent[0]
    assert contents(clone).items() <= hub.spaces["me/cats"].files.items()


def test_what_the_hub_refuses_is_a_sentence(hub, refused, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("HF_TOKEN")
        assert refused().startswith("There is no token of the Hub here. Run 'hf auth login'")
        patch.setenv("HF_TOKEN", "hf_wrong")
        assert refused().startswith("The Hub does not know this token.")
    hub.spaces["me/docker"] = StandInSpace("docker")
    hub.spaces["me/dogs"] = StandInSpace(files={"README.md": b"", "app.py": b"woof"})
    hub.spaces["you/cats"] = StandInSpace()
    for name in ("me/docker", "me/dogs"):
        assert f"a Space {name} already, with another program" in refused(name)
    assert "may not write to you/cats (You have no write access)" in refused("you/cats")
    assert "may not write to you/new" in refused("you/new")
    assert hub.spaces["me/dogs"].files["app.py"] == b"woof"


def test_nothing_private_is_shown_by_mistake(hub, refused):
    hub.spaces["me/cats"] = StandInSpace()
    assert "The Space me/cats is public" in refused("me/cats", "--private")
    assert not hub.spaces["me/cats"].files


def test_a_file_too_large_and_a_broken_hub_are_sentences(hub, clone, deploy, refused):
    hub.largest = LARGE
    assert "This file is too large" in refused()
    hub.largest, hub.broken = 10_000_000, 500
    assert "The Hub is in trouble (Out of order). Run the same command" in refused()
    hub.broken = 0
    deploy()
    assert contents(clone).items() <= hub.spaces["me/cats"].files.items()


def test_a_hub_out_of_reach_is_a_sentence(hub, refused, monkeypatch):
    with StandInHub() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.url)
    assert refused().startswith("The way to the Hub broke off (")
    assert not hub.log


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("README.md", "# Cats\n", "does not begin with the front matter"),
        ("README.md", README.replace("gradio", "docker", 1), "sdk must be gradio"),
        ("README.md", README.replace("app.py", "main.py"), "app_file names no file"),
        ("README.md", README.replace("6.31.0", "latest"), "sdk_version must be like"),
        ("studio/key.py", f"token = 'hf_{'a' * 34}'\n", "studio/key.py seems to contain a secret"),
        ("docs/a.md", "ssh: -----BEGIN OPENSSH PRIVATE KEY-----\n", "docs/a.md seems to contain"),
        ("diffusion/x.py", "password = 'at least twelve'\n", "diffusion/x.py seems to contain"),
    ],
)
def test_what_should_not_go_up_is_found_at_home(
    hub, clone, refused, monkeypatch, name, content, fault
):
    (clone / name).parent.mkdir(exist_ok=True)
    (clone / name).write_text(content)
    monkeypatch.setenv("ADMIN_PASSWORD", "at least twelve")
    assert fault in refused()
    assert not hub.log


@pytest.mark.parametrize("space", ["cats", "a/b/c", "../x", "me/", "-/--private/x", "ü/cats"])
def test_a_name_that_is_none(refused, space):
    assert "--space" in refused(space)


def test_a_password_that_is_typed_is_looked_for_as_well(hub, clone, refused, monkeypatch):
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: "typed by somebody")
    (clone / "app.py").write_text("password = 'typed by somebody'\n")
    assert "app.py seems to contain a secret" in refused("me/cats", "--admin")
    assert not hub.log


def test_where_nobody_can_type_a_password_it_says_so(hub, refused, monkeypatch):
    monkeypatch.delenv("ADMIN_PASSWORD", raising=False)
    monkeypatch.setattr("getpass.getpass", Mock(side_effect=EOFError))
    assert "Set ADMIN_PASSWORD" in refused("me/cats", "--admin")
    assert not hub.log


def test_a_password_must_be_long(hub, refused, monkeypatch):
    monkeypatch.setenv("ADMIN_PASSWORD", "short")
    assert "needs 12 characters" in refused("me/cats", "--admin")
    assert not hub.log
