"""Sets of latents: versions of each picture, kept in a file that belongs to one codec."""

import pytest
import torch
from drawing import cat, cats, encode, write_folder
from helpers import small_autoencoder

from diffusion.checkpoint import read_tensors, write_tensors
from diffusion.codec import LatentCodec
from diffusion.data import latents as latents_module
from diffusion.data.dataset import ImageSet, load_images
from diffusion.data.latents import LatentSet, encode_images, weights_hash


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    folder = write_folder(tmp_path_factory.mktemp("cats"), cats(11, 16))
    return load_images(folder, image_size=16, photos=False)


def codec(seed: int = 3) -> LatentCodec:
    return LatentCodec(small_autoencoder(seed=seed), 4, sigma_data=0.5)


def latent_set(count: int = 20) -> LatentSet:
    """A set in which every number of a latent says 100 * version + picture."""
    values = 100 * torch.arange(2)[:, None] + torch.arange(count)
    latents = values[:, :, None, None, None].expand(-1, -1, 4, 2, 2).half()
    names = tuple(f"cat-{i}.png" for i in range(count))
    return LatentSet(names, torch.arange(count) % 3 - 1, ("a", "b"), latents)


def test_every_picture_is_encoded_as_it_is_and_mirrored(images, tmp_path):
    made = encode_images(images, codec(), tmp_path / "latents.safetensors")
    assert (made.latents.shape, made.latents.dtype) == ((2, 11, 4, 4, 4), torch.float16)
    assert (made.names, made.labels) == (images.names, images.labels)
    picture = images.get(torch.tensor([9]))[0]
    for index, version in enumerate((picture, picture.flip(3))):
        expected = codec().encode(version)[0]
        assert (made.latents[index, 9] - expected).abs().max() < 0.01, index


def test_they_are_read_again_and_not_encoded_again(images, tmp_path, monkeypatch):
    path = tmp_path / "latents.safetensors"
    first = encode_images(images, codec(), path)

    def encode(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(LatentCodec, "encode", encode)
    again = encode_images(images, codec(), path)
    assert torch.equal(again.latents, first.latents)


def test_latents_of_another_codec_or_other_pictures_are_told_and_kept(images, tmp_path):
    path = tmp_path / "latents.safetensors"
    encode_images(images, codec(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds the latents of another codec; remove it.*\.$"):
        encode_images(images, codec(seed=4), path)
    folder = write_folder(tmp_path / "others", {f"other-{n}": d for n, d in cats(30, 16).items()})
    others = load_images(folder, image_size=16, photos=False).subset(range(12, 30))
    with pytest.raises(ValueError, match=r"holds the latents of another set of pictures; .*\.$"):
        encode_images(others, codec(), path)
    assert path.read_bytes() == before


def test_only_pictures_that_changed_are_encoded_anew(tmp_path, monkeypatch):
    folder, path = write_folder(tmp_path / "cats", cats(12, 16)), tmp_path / "latents.safetensors"

    def load() -> ImageSet:
        return load_images(folder, image_size=16, photos=False)

    encode_images(load(), codec(), path)
    (folder / "cat-001.png").write_bytes(encode(cat(77, 16)))  # exchanged
    (folder / "cat-004.png").unlink()
    (folder / "a-new-one.png").write_bytes(encode(cat(78, 16)))
    seen = []
    of_codec = LatentCodec.encode
    with monkeypatch.context() as patch:
        patch.setattr(LatentCodec, "encode", lambda c, p: (seen.append(len(p)), of_codec(c, p))[1])
        again = encode_images(load(), codec(), path)
    assert seen == [2] * 2  # two pictures, mirrored too
    anew = encode_images(load(), codec(), tmp_path / "anew.safetensors")
    assert again.names == anew.names == load().names
    assert (again.latents - anew.latents).abs().max() < 0.01
    with monkeypatch.context() as patch:
        patch.setattr(LatentCodec, "encode", None)
        kept = encode_images(load(), codec(), path)
        assert torch.equal(kept.latents, again.latents)
        (folder / "cat-005.png").unlink()  # what is only removed costs nothing
        fewer = encode_images(load(), codec(), path)
    assert torch.equal(fewer.latents, again.latents[:, [0, 1, 2, 3, 4, *range(6, 12)]])
    assert fewer.record == load().record
    assert again.subset([3, 1]).digests == (again.digests[3], again.digests[1])


def test_damaged_latents_are_made_anew(images, tmp_path):
    path = tmp_path / "latents.safetensors"
    first = encode_images(images, codec(), path)
    path.write_bytes(path.read_bytes()[:-50])
    again = encode_images(images, codec(), path)
    assert torch.equal(again.latents, first.latents)


def test_latents_of_a_version_that_knew_names_alone_are_read(images, tmp_path, monkeypatch):
    path = tmp_path / "latents.safetensors"
    first = encode_images(images, codec(), path)
    tensors, values = read_tensors(path)
    del values["pictures"]
    write_tensors(path, tensors, {**values, "names": list(images.names)})
    monkeypatch.setattr(LatentCodec, "encode", None)
    assert torch.equal(encode_images(images, codec(), path).latents, first.latents)


def test_a_network_is_known_by_its_weights():
    one, other = small_autoencoder(), small_autoencoder()
    assert weights_hash(one) == weights_hash(other)
    other.half()  # what its file holds
    assert weights_hash(one) == weights_hash(other)
    other.mean[0] += 1
    assert weights_hash(one) != weights_hash(other)


def test_latents_outlive_a_better_decoder(images, tmp_path, monkeypatch):
    path = tmp_path / "latents.safetensors"
    first = encode_images(images, codec(), path)
    better = codec()
    better.network.decoder.conv_in.weight.data += 1
    monkeypatch.setattr(LatentCodec, "encode", None)
    assert torch.equal(encode_images(images, better, path).latents, first.latents)
    better.network.encoder.conv_in.weight.data += 1
    with pytest.raises(ValueError, match="latents of another codec"):
        encode_images(images, better, path)


def test_pictures_that_are_to_be_cropped_are_refused(tmp_path):
    folder = write_folder(tmp_path / "cats", cats(11, 16))
    photos = load_images(folder, image_size=16, photos=True)
    with pytest.raises(ValueError, match="whole squares"):
        encode_images(photos, codec(), tmp_path / "latents.safetensors")


def test_a_batch_has_one_version_of_each_picture():
    latents, generator = latent_set(), torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(40):
        versions, classes = latents.get(torch.tensor([4, 17, 5]))
        assert versions.shape == (3, 2, 4, 2, 2)
        assert classes.tolist() == [0, 1, 1]
        x0 = latents.x0(versions, generator, mirror=True)
        assert (x0.shape, x0.dtype) == ((3, 4, 2, 2), torch.float32)
        assert (x0[:, 0, 0, 0] % 100).tolist() == [4, 17, 5]
        seen |= set((x0[:, 0, 0, 0] // 100).tolist())
    assert seen == {0, 1}


def test_without_mirroring_only_what_is_not_mirrored_is_shown():
    latents, generator = latent_set(), torch.Generator().manual_seed(0)
    versions, _ = latents.get(torch.arange(20))
    shown = latents.x0(versions, generator, mirror=False)[:, 0, 0, 0] // 100
    assert set(shown.tolist()) == {0}


def test_the_split_is_that_of_the_pictures(images):
    versions = torch.zeros(2, len(images), 4, 4, 4).half()
    latents = LatentSet(images.names, images.classes, images.labels, versions)
    for part, of_pictures in zip(latents.split(3), images.split(3), strict=True):
        assert part.names == of_pictures.names
    training, held = latent_set().split(2)
    assert (len(training), len(held)) == (18, 2)
    assert training.latents.shape[1] == len(training.classes) == 18
    numbers = [int(name[4:-4]) for name in held.names]
    assert held.latents[0, :, 0, 0, 0].tolist() == numbers


def test_a_batch_of_encoding_may_be_cut_short(images, tmp_path, monkeypatch):
    whole = encode_images(images, codec(), tmp_path / "a.safetensors")
    monkeypatch.setattr(latents_module, "ENCODE_BATCH", 4)
    parts = encode_images(images, codec(), tmp_path / "b.safetensors")
    assert (parts.latents - whole.latents).abs().max() < 0.01
