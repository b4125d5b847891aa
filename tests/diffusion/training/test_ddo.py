"""Learning to tell real pictures from the model's own drawings."""

import math
from dataclasses import replace

import pytest
import torch
from drawing import write_labels
from helpers import LATENT, latent_denoiser
from studio_fixtures import save_tiny
from tiny_cli import main
from torch.testing import assert_close
from training_runs import CPU, config, load

from diffusion import Denoiser, generate
from diffusion.checkpoint import read_checkpoint
from diffusion.codec import to_uint8
from diffusion.data.latents import as_latents
from diffusion.training.ddo import BETA, FIRST_SEED, FOLDER_NAME, Discriminating, own_drawings
from diffusion.training.trainer import Trainer, step_generators

pytestmark = pytest.mark.usefixtures("one_sample")


def discriminating(pictures, tmp_path, settings=None, *, latents=False, count=12):
    """An objective of pixels or of latents, moved to where it trains."""
    settings = settings or config(augment=0.0)
    path = tmp_path / "start.safetensors"
    if latents:
        latent_denoiser(replace(LATENT, num_classes=2)).save(path)
    else:
        save_tiny(path, counts=(1, 1))
    init, info = read_checkpoint(path)
    images = as_latents(load(pictures), path, tmp_path) if latents else load(pictures)
    model = Denoiser.load_for_sampling(path)
    drawings = own_drawings(model, images, tmp_path / FOLDER_NAME, count=count, model_hash="m")
    objective = Discriminating(settings, info, images, drawings, init=init)
    objective.to(CPU)
    return objective


def rows_of(objective, settings):
    batch = next(objective.batches(settings, first_step=0, share=slice(None)))
    return objective.prepare(batch, settings, *step_generators(0, 0, 0, CPU))


# -- the drawings -----------------------------------------------------------------------------


def test_drawings_are_of_the_network_alone_with_the_labels_of_their_seeds(pictures, tmp_path):
    drawings = discriminating(pictures, tmp_path, count=5).drawings
    model = Denoiser.load_for_sampling(tmp_path / "start.safetensors")
    seeds = range(FIRST_SEED, FIRST_SEED + 5)
    labels = [model.info.label_index(model.info.any_label(seed)) for seed in seeds]
    assert drawings.classes.tolist() == labels
    assert len(set(labels)) == 2
    unguided = replace(model.info.sampling, guidance=1.0)
    alone = generate(model, seeds, unguided, class_labels=labels).int()
    assert (drawings.pixels.int() - alone).abs().max() <= 1  # kept in half precision
    guided = generate(model, seeds, replace(unguided, guidance=3.0), class_labels=labels).int()
    assert (drawings.pixels.int() - guided).abs().max() > 3


def test_drawings_are_drawn_once_and_those_of_another_model_are_refused(pictures, tmp_path):
    objective = discriminating(pictures, tmp_path)

    def drawn(**changes):
        options = {"count": 12, "model_hash": "m", **changes}
        images = objective.images
        return own_drawings(objective.denoiser, images, tmp_path / FOLDER_NAME, **options)

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER_NAME).iterdir()}
    assert torch.equal(drawn().pixels, objective.drawings.pixels)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / FOLDER_NAME).iterdir()} == kept
    with pytest.raises(ValueError, match="is of another model"):
        drawn(model_hash="other")
    with pytest.raises(ValueError, match="at least 1"):
        drawn(count=0)


# -- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize("latents", [False, True])
def test_at_the_start_real_pictures_pull_as_drawings_push(pictures, tmp_path, latents):
    """The gain is 0 there, and the gradient half that of the errors' difference."""
    settings = config(augment=0.0, batch_size=4)
    objective = discriminating(pictures, tmp_path, settings, latents=latents)
    network = objective.network
    rows = rows_of(objective, settings)
    loss = objective.loss(*rows)
    assert_close(loss, torch.full((4,), 2 * math.log(2) / BETA))
    found = torch.autograd.grad(loss.mean(), list(network.parameters()), allow_unused=True)
    (x0, sigma, noise, labels, augment), drawn = rows[:5], rows[5:]
    real = objective.denoiser.loss(x0, sigma, noise, labels, augment)
    drawing = objective.denoiser.loss(drawn[0], sigma, *drawn[1:])
    wanted = torch.autograd.grad(
        (real - drawing).mean() / 2, list(network.parameters()), allow_unused=True
    )
    compared = [(a, b) for a, b in zip(found, wanted, strict=True) if a is not None]
    assert len(compared) > 10
    for one, other in compared:
        assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_it_learns_to_tell_real_pictures_from_drawings(pictures, tmp_path):
    settings = config(images=640, batch_size=8, augment=0.0, lr=1e-3, muon_lr=5e-3)
    objective = discriminating(pictures, tmp_path, settings)
    Trainer(settings, objective, tmp_path / "run").train()
    rows = rows_of(objective, config(batch_size=24, augment=0.0, label_dropout=0.0))
    with torch.no_grad():
        real = objective._gain(*rows[:5])
        drawing = objective._gain(rows[5], rows[1], *rows[6:])
    assert real.mean() > drawing.mean() + 0.01


def test_each_process_has_its_share_of_real_pictures_and_of_drawings(pictures, tmp_path):
    settings = config(batch_size=6, augment=0.0)
    objective = discriminating(pictures, tmp_path, settings)
    whole = rows_of(objective, settings)
    for rank in range(3):
        batch = next(objective.batches(settings, first_step=0, share=slice(rank, None, 3)))
        generators = step_generators(0, 0, 0, CPU)
        own = objective.prepare_share(batch, settings, *generators, rank=rank, processes=3)
        for row, others in zip(own, whole, strict=True):
            assert torch.equal(row, others[rank::3])


# -- the command ------------------------------------------------------------------------------


def test_train_learns_from_drawings_and_goes_on(pictures, tmp_path, capsys):
    start = save_tiny(tmp_path / "start.safetensors", counts=(1, 1))
    base = ["train", "--init", str(start), "--data", str(pictures[0])]
    base += ["--out", str(tmp_path / "run")]
    assert main([*base, "--drawings", "8", "--images", "16"]) == 0
    assert main([*base, "--drawings", "8", "--images", "32"]) == 0
    assert "Finished: 32 images" in capsys.readouterr().err
    for other in (["--drawings", "9"], []):
        assert main([*base, *other, "--images", "48"]) == 1
    told = capsys.readouterr().err
    assert "another network, another --init" in told
    assert Denoiser.load(tmp_path / "run" / "model.safetensors").info.guide is None


def test_bad_requests_for_drawings_are_sentences(pictures, tmp_path, capsys):
    start = str(save_tiny(tmp_path / "start.safetensors"))
    new = str(write_labels(tmp_path / "l.csv", {"cat-001.png": "pink"}))
    base = ["train", "--data", str(pictures[0]), "--out", str(tmp_path / "run"), "--images", "8"]
    for arguments, sentence in (
        (["--drawings", "8"], "together with --drawings"),
        (["--drawings", "0", "--init", start], "at least 1"),
        (["--drawings", "8", "--init", start, "--labels", new], "must know all labels"),
    ):
        assert main([*base, *arguments]) == 1
        assert sentence in capsys.readouterr().err


def test_drawings_of_pixels_are_whole_levels(pictures, tmp_path):
    """As real pictures are: or else it would tell them apart by that."""
    objective = discriminating(pictures, tmp_path)
    x0 = rows_of(objective, config(augment=0.0))[5]
    assert_close((x0 + 1) * 127.5, ((x0 + 1) * 127.5).round(), atol=1e-3, rtol=0)
    assert objective.drawings.pixels.dtype == to_uint8(x0).dtype
