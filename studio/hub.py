"""A model of one's own from the Hugging Face Hub, fetched as the page starts.

It is put beside what the page itself writes, so nothing on the page can rename or delete it. What
was fetched once stays, and serves while the Hub is away.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from diffusion.checkpoint import WEIGHTS_NAME, read_checkpoint
from diffusion.files import atomic_path

from .training.tuned import REPO

FOLDER = "from-hub"  # in the data folder
ANSWER_SECONDS = 5.0  # that the Hub has to say whether there is anything new


def fetch_model(repo: str, data_dir: Path) -> Path | None:
    """The file of the model in ``repo`` (USER/NAME) of the Hub, brought up to date if that can be.

    None, and a sentence on stderr, where there is no such model or no way to it, and none was
    fetched before. Raises ValueError for what is no name of a repository.
    """
    if not REPO.fullmatch(repo):
        raise ValueError("CHECKPOINT_REPO must be like USER/NAME.")
    folder = data_dir / FOLDER / repo.replace("/", "--")
    name = re.sub(r"[^A-Za-z0-9_-]", "-", repo.split("/")[1])
    model = folder / f"{name}.safetensors"
    try:
        _bring_up_to_date(repo, folder / "download", model)
    except Exception as error:  # of several libraries, by what is wrong and where
        said = " ".join(str(error).split())[:200] or type(error).__name__
        whole = "The copy of last time is used." if model.is_file() else "The page starts without."
        print(f"{repo} could not be fetched from the Hub: {said}. {whole}", file=sys.stderr)
    return model if model.is_file() else None


def _bring_up_to_date(repo: str, download: Path, model: Path) -> None:
    from huggingface_hub import hf_hub_download

    fetched = Path(
        hf_hub_download(repo, WEIGHTS_NAME, local_dir=download, etag_timeout=ANSWER_SECONDS)
    )
    if model.is_file() and model.stat().st_mtime_ns == fetched.stat().st_mtime_ns:
        return
    read_checkpoint(fetched)  # only what is whole takes the place of what was there
    with atomic_path(model) as temporary:
        shutil.copy2(fetched, temporary)
