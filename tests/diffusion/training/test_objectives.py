"""What a network is trained on, and how it is measured on what is held out."""

from dataclasses import replace

import pytest
import torch
from helpers import LATENT, latent_denoiser
from training_runs import CPU, averaged, config, denoising, info, load, metrics

from diffusion import Denoiser
from diffusion.checkpoint import read_checkpoint
from diffusion.data.latents import as_latents
from diffusion.training.objectives import Denoising, heldout_loss
from diffusion.training.trainer import step_generators

pytestmark = pytest.mark.usefixtures("one_sample")


@pytest.mark.parametrize("mirror", [False, True])
def test_pictures_are_mirrored_if_so_wished(pictures, tmp_path, mirror):
    run = denoising(config(augment=0.0, mirror=mirror), info(), load(pictures), tmp_path)
    shown = run.objective.images.pixels[:1].expand(64, -1, -1, -1)
    x0, _, _ = run.objective.examples(
        shown, torch.zeros(64).long(), run.config, torch.Generator().manual_seed(0)
    )
    assert len(x0.unique(dim=0)) == 1 + mirror


def test_what_is_held_out_is_never_trained_on(pictures, tmp_path):
    images = load(pictures)
    run = denoising(config(holdout=2), info(), images, tmp_path)
    assert len(run.objective.heldout_images) == 2
    assert not set(run.objective.heldout_images.names) & set(run.objective.images.names)
    assert len(run.objective.images) == 22


def test_held_out_pictures_of_ones_own_are_looked_at_as_it_trains(pictures, tmp_path):
    """With their labels and at the run's noise levels; others, at those that runs share."""
    training, heldout = load(pictures).split(8, at_most=0.5)
    settings = config(images=8, P_mean=0.4)
    run = denoising(settings, info(), training, tmp_path / "own", heldout=heldout)
    run.train()
    loss = heldout_loss(averaged(run), heldout, device=CPU, labelled=True, P_mean=0.4)
    assert metrics(tmp_path / "own")[-1]["heldout_loss"] == loss
    assert heldout_loss(averaged(run), heldout, device=CPU, labelled=True) != loss
    run = denoising(settings, info(), load(pictures), tmp_path / "shared")
    run.train()
    loss = heldout_loss(averaged(run), run.objective.heldout_images, device=CPU)
    assert metrics(tmp_path / "shared")[-1]["heldout_loss"] == loss


def test_the_untrained_network_has_a_held_out_loss_of_one(pictures):
    """The zero network under EDM preconditioning, on data of standard deviation sigma_data."""
    noise = (torch.rand(320, 3, 16, 16) * 2 - 1) * 0.5 * 3**0.5
    images = load(pictures)
    uniform = replace(
        images,
        names=tuple(map(str, range(320))),
        pixels=((noise + 1) * 127.5).round().to(torch.uint8),
        classes=torch.full((320,), -1),
    )
    denoiser = Denoiser.from_config(info().model).eval()
    loss = heldout_loss(denoiser, uniform, device=CPU)
    assert loss == pytest.approx(1, abs=0.02)
    assert heldout_loss(denoiser, uniform, device=CPU) == loss
    assert heldout_loss(denoiser, uniform, device=CPU, batch_size=320) == pytest.approx(1, abs=0.02)
    assert heldout_loss(denoiser, uniform.subset([]), device=CPU) is None


def test_labels_are_dropped_and_the_unlabelled_are_null(pictures, tmp_path):
    run = denoising(config(label_dropout=0.5), info(), load(pictures), tmp_path)
    classes = torch.tensor([0, 1, -1]).repeat(400)
    shown = torch.zeros(1200, 3, 16, 16, dtype=torch.uint8)
    _, labels, _ = run.objective.examples(
        shown, classes, run.config, torch.Generator().manual_seed(0)
    )
    assert (labels[2::3] == 2).all()
    for label in (0, 1):
        kept = labels[label::3]
        assert set(kept.tolist()) == {label, 2}
        assert 160 < (kept == label).sum() < 240


def test_augmentation_that_the_network_cannot_be_told_of_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"takes no augmentation parameters\. Set --augment to 0"):
        denoising(config(augment=0.1), info(augment_channels=0), load(pictures), tmp_path)
    denoising(config(augment=0.0), info(augment_channels=0), load(pictures), tmp_path)


def test_latents_are_not_augmented(pictures):
    model = latent_denoiser(replace(LATENT, augment_channels=6))
    with pytest.raises(ValueError, match=r"Latents cannot be augmented\. Set --augment to 0"):
        Denoising(config(augment=0.1), model.info, load(pictures), init=model.state_dict())


@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_the_shares_of_processes_are_the_rows_of_one_batch(pictures, tmp_path, kind):
    settings = config(batch_size=6, augment=0.5, label_dropout=0.5)
    if kind == "latents":
        latent_denoiser(replace(LATENT, num_classes=2)).save(tmp_path / "base.safetensors")
        init, about = read_checkpoint(tmp_path / "base.safetensors")
        examples = as_latents(load(pictures), tmp_path / "base.safetensors", tmp_path)
        settings = replace(settings, augment=0.0)
        objective = Denoising(settings, about, examples, init=init)
    else:
        objective = Denoising(settings, info(), load(pictures))
    objective.to(CPU)

    def generators():
        return step_generators(0, 3, 0, CPU)

    def batch(share: slice):
        return next(objective.batches(settings, first_step=3, share=share))

    whole = objective.prepare(batch(slice(None)), settings, *generators())
    for rank in range(3):
        own = batch(slice(rank, None, 3))
        share = objective.prepare_share(own, settings, *generators(), rank=rank, processes=3)
        assert len(share[0]) == 2
        for row, others in zip(share, whole, strict=True):
            assert torch.equal(row, others[rank::3])
