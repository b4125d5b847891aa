"""Files of a teacher's latents, matched to pictures by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from drawing import cats, write_folder
from safetensors.torch import save_file

from diffusion.data.dataset import load_images
from diffusion.data.teacher import TaughtSet, teacher_latents

SHAPE = (4, 2, 2)


def write(
    path: Path, names: Sequence[str], *, first: int = 0, versions: int = 2, shape=SHAPE
) -> Path:
    """A file in which every number of a latent says 100 * version + picture."""
    values = 100 * torch.arange(versions)[:, None] + torch.arange(first, first + len(names))
    latents = values[:, :, None, None, None].expand(-1, -1, *shape).half().contiguous()
    save_file({"latents": latents}, path, metadata={"names": json.dumps(list(names))})
    return path


def numbers(latents: torch.Tensor) -> list[list[float]]:
    return latents[:, :, 0, 0, 0].tolist()


def test_pictures_get_the_latents_of_their_names_in_any_order_from_several_files(tmp_path):
    one = write(tmp_path / "one.st", ["a.png", "b.png", "c.png"])
    other = write(tmp_path / "other.st", ["d.png", "e.png"], first=3)
    found = teacher_latents([one, other], ["e.png", "b.png", "d.png"], shape=SHAPE)
    assert (found.shape, found.dtype) == ((2, 3, *SHAPE), torch.float16)
    assert numbers(found) == [[4, 1, 3], [104, 101, 103]]


def test_a_name_may_be_the_end_of_a_path_and_letters_may_be_composed_otherwise(tmp_path):
    path = write(tmp_path / "one.st", ["e\u0301.png", "b.png"])
    found = teacher_latents([path], ["heads/b.png", "heads/\u00e9.png"], shape=SHAPE)
    assert numbers(found) == [[1, 0], [101, 100]]


def test_without_a_mirrored_version_in_every_file_there_is_none(tmp_path):
    one = write(tmp_path / "one.st", ["a.png"])
    plain = write(tmp_path / "plain.st", ["b.png"], first=1, versions=1)
    assert numbers(teacher_latents([one, plain], ["a.png", "b.png"], shape=SHAPE)) == [[0, 1]]


def test_files_that_do_not_fit_are_told_in_a_sentence(tmp_path):
    one = write(tmp_path / "one.st", ["a.png", "b.png"])

    def sentence(paths, names=("a.png",), shape=SHAPE) -> str:
        with pytest.raises(ValueError, match=r"\.$") as error:
            teacher_latents(paths, names, shape=shape)
        return str(error.value)

    told = sentence([one], ["a.png", "x.png", "y.png"])
    assert told == "2 of 3 pictures have no latents, such as x.png."
    told = sentence([one, write(tmp_path / "again.st", ["b.png"])])
    assert told == "b.png occurs more than once in the files of latents."
    told = sentence([one], shape=(4, 3, 3))
    assert told.startswith("one.st has latents of 4 channels at 2x2; ")
    assert told.endswith("need 4 channels at 3x3.")
    assert "need 8 channels at 2x2" in sentence([one], shape=(8, 2, 2))
    assert "3 versions" in sentence([write(tmp_path / "three.st", ["a.png"], versions=3)])
    assert "There is no file of latents" in sentence([tmp_path / "none.st"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_latents_that_are_not_finite_are_refused(tmp_path, value):
    latents = torch.zeros(1, 2, *SHAPE)
    latents[0, 1, 3, 1, 1] = value  # 1e6 is beyond half precision
    metadata = {"names": json.dumps(["a.png", "b.png"])}
    save_file({"latents": latents}, tmp_path / "one.st", metadata=metadata)
    with pytest.raises(ValueError, match=r"latents in one.st contain NaN or infinite numbers\.$"):
        teacher_latents([tmp_path / "one.st"], ["a.png"], shape=SHAPE)


@pytest.mark.parametrize(
    "kind", ["cut short", "no names", "names of another kind", "number", "no tensor", "flat", "few"]
)
def test_what_is_no_file_of_latents_is_told(tmp_path, kind):
    names = {"number": "7", "names of another kind": '{"a": [', "few": '["a.png"]'}
    metadata = {"names": names.get(kind, '["a.png", "b.png"]')}
    latents = torch.zeros(8) if kind == "flat" else torch.zeros(1, 2, *SHAPE)
    tensor = "pictures" if kind == "no tensor" else "latents"
    path = tmp_path / "one.st"
    save_file({tensor: latents}, path, metadata=None if kind == "no names" else metadata)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:-9])
    words = "2 latents in 1 versions for 1 names" if kind == "few" else "is not a file of latents"
    with pytest.raises(ValueError, match=rf"^one.st .*{words}|^one.st {words}"):
        teacher_latents([path], ["a.png"], shape=SHAPE)


def test_a_set_gives_pictures_with_all_versions_of_their_latents(tmp_path):
    images = load_images(write_folder(tmp_path, cats(9, 16)), image_size=16, photos=False)
    values = 100 * torch.arange(2)[:, None] + torch.arange(9)
    both = TaughtSet(images, values[:, :, None, None, None].expand(-1, -1, *SHAPE).half())
    assert (len(both), both.in_memory) == (9, True)
    pictures, versions = both.to(torch.device("cpu")).get(torch.tensor([7, 2]))
    assert torch.equal(pictures, images.pixels[[7, 2]])
    assert versions.shape == (2, 2, *SHAPE)
    assert versions[:, :, 0, 0, 0].tolist() == [[7, 107], [2, 102]]
