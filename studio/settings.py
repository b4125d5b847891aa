"""The options of ``python app.py``, each also an environment variable."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .space import on_space

SHARE_WARNING = """\
Anybody who has the public link can use this page for up to a week: they can make cats,
upload pictures to start from, and keep this machine busy. They cannot read files of
this machine, or use the Admin tab without its password."""


@dataclass(frozen=True)
class Settings:
    """How the page is served."""

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False  # a public Gradio link
    checkpoint: str = ""  # default model: a name in checkpoints/, or a file
    data_dir: Path = Path("data")  # what the owner makes: tuned models and trainings
    max_queue: int = 64  # requests that may wait
    root_path: str = ""  # where a proxy shows the page, if not at its root
    log: str = ""  # file for a line of JSON for each request and job; - for stdout


OPTIONS = {  # option: environment variable, help
    "host": ("CAT_HOST", "address to listen on; 0.0.0.0 for all (default %(default)s)"),
    "port": ("CAT_PORT", "port (default %(default)s)"),
    "checkpoint": ("CAT_CHECKPOINT", "model that is selected at first (default: the shipped one)"),
    "data-dir": ("CAT_DATA_DIR", "folder for tuned models and trainings (default: %(default)s)"),
    "max-queue": ("CAT_MAX_QUEUE", "requests that may wait (default %(default)s)"),
    "root-path": ("CAT_ROOT_PATH", "path that a proxy shows the page at, as in /cats (default: /)"),
    "log": ("CAT_LOG", "file for a line of JSON for each request and job, - for stdout"),
}


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line, else the environment, else the defaults."""
    defaults = Settings(host="0.0.0.0" if on_space() else Settings.host)
    parser = argparse.ArgumentParser(
        prog="python app.py",
        description="Serve the Cat Diffusion page.",
        epilog="Each option is also an environment variable: "
        + ", ".join(f"--{option} is {name}" for option, (name, _) in OPTIONS.items())
        + ", --share is CAT_SHARE=1. ADMIN_PASSWORD (at least 12 characters, only there) switches "
        "the Admin tab on. CHECKPOINT_REPO names a model to fetch from the Hugging Face Hub.",
    )
    for option, (name, text) in OPTIONS.items():
        default = getattr(defaults, option.replace("-", "_"))
        kind = type(default)
        value = os.environ.get(name) or str(default)  # argparse converts and checks a text default
        parser.add_argument(f"--{option}", type=kind, default=value, help=text)
    parser.add_argument(
        "--share",
        action="store_true",
        default=os.environ.get("CAT_SHARE", "").lower() in ("1", "true", "yes", "on"),
        help="also make a public link, which works for up to a week",
    )
    values = parser.parse_args(arguments)
    if not 0 <= values.port <= 65535:
        parser.error(f"argument --port: {values.port} is not a valid port")
    if values.max_queue < 1:
        parser.error("argument --max-queue: must be at least 1")
    if values.root_path.strip("/") and not re.fullmatch(r"/[\w./~-]+", values.root_path):
        parser.error("argument --root-path: a path such as /cats")
    values.root_path = values.root_path.rstrip("/")
    values.host = values.host.strip("[]")  # as IPv6 addresses are written in links
    return Settings(**vars(values))
