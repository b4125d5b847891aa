"""Evaluation: known answers for models that copy, that forget labels, and for real pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from drawing import cat
from helpers import small_denoiser
from PIL import Image
from torch.testing import assert_close

from diffusion import ModelConfig, SampleConfig, generate
from diffusion.checkpoint import CheckpointInfo
from diffusion.data.dataset import ImageSet, load_images
from diffusion.evaluation import evaluate
from diffusion.evaluation.evaluate import (
    PAIRS,
    Neighbours,
    batches_of,
    draw_samples,
    fit_probe,
    load_real,
    proportional_classes,
    sample_classes,
    shrink,
    thumbnails,
)
from diffusion.evaluation.features import extract_features

CONFIG = ModelConfig(
    image_size=16,
    channels=16,
    channel_mult=(1, 2),
    num_blocks=1,
    attention_resolutions=(4,),
    attention_head_channels=16,
    num_classes=2,
)
LABELS = ("label 0", "label 1")
NUM, SHOWN = 250, 50  # pictures, and samples that evaluate draws


class Colours(torch.nn.Module):
    """Mean colours of the quarters of a picture: features [N, 12]. What is reddish is a cat."""

    def forward(self, pictures):
        return torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2).flatten(1)

    def is_cat(self, features):
        return features[:, :4].mean(dim=1) > features[:, 8:].mean(dim=1)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageSet:
    """Of five pictures two are reddish and labelled 1, two are bluish and 0, one has no label."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = ["file,label"]
    for i in range(NUM):
        red = i % 5 < 2
        tint = Image.new("RGB", (16, 16), (255, 0, 0) if red else (0, 0, 255))
        Image.blend(cat(i, 16), tint, 0.4).save(folder / f"{i:03d}.png")
        lines.append(f"{i:03d}.png,{'' if i % 5 == 4 else LABELS[red]}")
    csv = folder.parent / "labels.csv"
    csv.write_text("\n".join(lines))
    return load_images(folder, image_size=16, labels_csv=csv, labels=LABELS)


@pytest.fixture
def denoiser():
    return small_denoiser(CONFIG)


def run(denoiser, images, monkeypatch, drawn=None, **options):
    """Evaluate a model that draws ``drawn``, if given, whatever it is asked for."""
    if drawn is not None:
        monkeypatch.setattr(evaluate, "draw_samples", lambda *_: drawn)
    options = {"samples": len(drawn) if drawn is not None else SHOWN} | options
    return evaluate.evaluate(denoiser, images, Colours(), SampleConfig(num_steps=2), **options)


def test_real_pictures_as_samples_have_no_distance(denoiser, images, monkeypatch):
    """Drawn in the order of the labels that were asked for."""
    order = images.classes.argsort(stable=True)
    report = run(denoiser, images, monkeypatch, images.pixels[order]).report
    assert report["fd"] == pytest.approx(0, abs=1e-6)
    assert report["kid"] < 0  # the same pictures: less than two draws would have
    assert report["precision"] == report["recall"] == 1
    assert report["label_accuracy"]["samples"] > 0.95
    assert report["label_accuracy"]["heldout"] > 0.9
    assert report["cat_share"]["samples"] == report["cat_share"]["pictures"] > 0.3
    for label in LABELS:
        assert (
            report["per_label"][label]["pictures"] == report["per_label"][label]["samples"] == 100
        )
        assert report["per_label"][label]["fd"] == pytest.approx(0, abs=1e-6)
        assert report["per_label"][label]["accuracy"] > 0.9


def test_labels_that_are_swapped_are_noticed(denoiser, images, monkeypatch):
    order = images.classes.argsort(stable=True)
    order[50:] = order[50:].flip(0)  # behind those without a label
    report = run(denoiser, images, monkeypatch, images.pixels[order]).report
    assert report["label_accuracy"]["samples"] < 0.05
    assert report["per_label"]["label 0"]["fd"] > 100 * max(report["fd"], 1e-3)


def test_a_model_that_copies_its_training_pictures_is_found_out(denoiser, images, monkeypatch):
    """Mirrored or not."""
    training, _ = images.split(300)
    copies = training.pixels[:60].clone()
    copies[::2] = copies[::2].flip(3)
    found = run(denoiser, images, monkeypatch, copies)
    for kind in ("features", "pixels"):
        assert found.report["memorising"][kind]["samples"]["median"] == pytest.approx(0, abs=1e-4)
        assert found.report["memorising"][kind]["heldout"]["min"] > 0
        assert found.report["memorising"][kind]["nearer"] == 1
        assert found.report["memorising"][kind]["suspicious"] == 1


def test_larger_samples_are_compared_at_the_size_of_the_pictures(denoiser, images, monkeypatch):
    order = images.classes.argsort(stable=True)
    large = images.pixels[order].repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = run(denoiser, images, monkeypatch, large)
    assert found.report["fd"] == pytest.approx(0, abs=1e-6)
    assert found.report["image_size"] == 16
    assert found.closest.shape[-1] == 16


def test_pictures_are_made_small_as_they_are_when_loaded(tmp_path):
    pictures = [cat(seed, 32) for seed in range(12)]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number:02d}.png")
    info = small_denoiser(replace(CONFIG, image_size=32, num_classes=0)).info
    small = load_real(tmp_path, info, size=16)
    assert (load_real(tmp_path, info).image_size, small.image_size) == (32, 16)
    large = load_real(tmp_path, info).pixels
    assert torch.equal(shrink(large, 16), small.pixels)
    assert torch.equal(shrink(large, 20), load_real(tmp_path, info, size=20).pixels)
    for size in (0, 33):
        with pytest.raises(ValueError, match=f"1 to 32 pixels, not {size}"):
            load_real(tmp_path, info, size=size)


def test_photos_are_compared_as_they_are_trained_on_cropped(tmp_path):
    for seed in range(12):
        cat(seed, 32).resize((40, 32)).save(tmp_path / f"{seed:02d}.png")
    info = small_denoiser(replace(CONFIG, image_size=32, num_classes=0)).info
    photos = load_real(tmp_path, info)
    indices = torch.arange(len(photos))
    cropped = torch.cat(list(batches_of(photos, indices)))
    assert photos.pixels.shape[-1] == 40
    assert cropped.shape == (12, 3, 32, 32)
    backwards = torch.cat(list(batches_of(photos, indices.flip(0))))
    assert torch.equal(cropped, backwards.flip(0))  # alike in whatever company
    photos.pixels[:] = photos.pixels[:1]
    of_one = torch.cat(list(batches_of(photos, indices)))
    assert len(of_one.unique(dim=0)) == 12  # each with a crop of its own


def test_the_closest_pairs_are_shown(denoiser, images, monkeypatch):
    training, _ = images.split(300)
    drawn = torch.randint(256, (60, 3, 16, 16), dtype=torch.uint8)
    drawn[7::4] = training.pixels[:14].flip(3)
    found = run(denoiser, images, monkeypatch, drawn)
    assert len(found.closest) == 4 * PAIRS
    by_pixels = found.closest[2 * PAIRS :]
    assert_close(by_pixels[:PAIRS], by_pixels[PAIRS:], rtol=0, atol=0)


def test_a_model_that_draws_what_was_held_out_has_not_copied(denoiser, images, monkeypatch):
    _, heldout = images.split(300)
    drawn = heldout.pixels.repeat(2, 1, 1, 1)
    memorising = run(denoiser, images, monkeypatch, drawn).report["memorising"]
    for kind in ("features", "pixels"):
        ours, theirs = (memorising[kind][who] for who in ("samples", "heldout"))
        assert ours["min"] == theirs["min"]
        assert ours["median"] == theirs["median"]
        assert memorising[kind]["nearer"] == pytest.approx(0.5, abs=0.05)
        assert memorising[kind]["suspicious"] < 0.1


def test_what_is_said_of_samples_is_not_of_pictures(denoiser, images, monkeypatch):
    report = run(denoiser, images, monkeypatch, images.pixels[images.classes == 1]).report
    assert report["cat_share"]["samples"] > 0.95
    assert report["cat_share"]["pictures"] < 0.7
    assert report["recall"] < report["precision"] == 1


def test_the_probe_is_checked_on_pictures_that_it_has_not_seen(denoiser, images, monkeypatch):
    """Labels that mean nothing could be learned by heart, but not be told."""
    classes = torch.randint(2, (NUM,))
    monkeypatch.setattr(Colours, "forward", lambda _, pictures: thumbnails(pictures))
    monkeypatch.setattr(Colours, "is_cat", lambda *_: None)
    report = run(denoiser, replace(images, classes=classes), monkeypatch).report
    assert report["label_accuracy"]["heldout"] < 0.85
    assert report["cat_share"]["samples"] is None


def test_a_whole_evaluation(denoiser, images, monkeypatch):
    found = run(denoiser, images, monkeypatch)
    report = json.loads(json.dumps(found.report, allow_nan=False))
    assert report["samples"] == SHOWN
    assert report["pictures"] == NUM
    assert report["sampling"]["num_steps"] == 2
    assert set(report["seconds"]) == {"drawing", "features", "measuring"}
    assert report["fd"] > 0
    few = report["per_label"]["label 1"]
    assert few["samples"] == 20
    assert few["fd"] is few["kid"] is few["precision"] is None
    assert found.closest.shape == (4 * PAIRS, 3, 16, 16)


def test_without_labels_and_with_nothing_held_out(denoiser, images, monkeypatch):
    few = images.subset(range(9))
    few.classes.fill_(-1)
    report = run(denoiser, few, monkeypatch).report
    assert report["label_accuracy"] == {"samples": None, "heldout": None}
    assert report["memorising"]["pixels"]["heldout"] is None
    assert report["memorising"]["pixels"]["nearer"] is None
    json.dumps(report, allow_nan=False)


def test_too_few_samples_are_refused(denoiser, images, monkeypatch):
    with pytest.raises(ValueError, match="At least 50 samples are needed, not 49"):
        run(denoiser, images, monkeypatch, samples=49)


def test_samples_are_labelled_in_the_proportions_of_the_pictures():
    classes = torch.tensor([2] * 50 + [-1] * 20 + [0] * 30)
    for num in (10, 100, 1000):
        counts = torch.bincount(proportional_classes(classes, num) + 1, minlength=4)
        assert counts.tolist() == [num // 5, 3 * num // 10, 0, num // 2]
    assert len(proportional_classes(classes, 7)) == 7


def test_samples_are_labelled_as_their_seeds_choose():
    model = ModelConfig(image_size=16, channels=8, num_classes=2)
    info = CheckpointInfo(model, labels=("black", "tabby"))
    classes = torch.tensor([0] * 5 + [-1] * 5)
    assert sample_classes(info, classes, 4).tolist() == [-1, -1, 0, 0]
    info = replace(info, label_counts=(1, 9))
    chosen = [info.labels[i] for i in sample_classes(info, classes, 50)]
    assert chosen == [info.any_label(seed) for seed in range(50)]


def test_samples_are_those_of_the_seeds_and_labels(denoiser):
    classes = torch.tensor([-1] * 10 + [0] * 5 + [1] * 6)
    config = SampleConfig(num_steps=2)
    drawn = draw_samples(denoiser, config, classes)
    for seed, label in ((3, 2), (12, 0), (20, 1)):
        alone = generate(denoiser, [seed], config, class_labels=[label])[0]
        assert (drawn[seed].int() - alone.int()).abs().max() <= 1


def test_the_probe_is_the_solution_of_ridge_regression():
    """The same by least squares, the penalty being more equations."""
    features, classes = torch.randn(40, 5).double(), torch.randint(3, (40,))
    probe = fit_probe(features, classes, penalty=0.3)
    x = (features - features.mean(dim=0)) / features.std(dim=0)
    y = torch.nn.functional.one_hot(classes).double()
    more = (0.3 * 40) ** 0.5 * torch.eye(5, dtype=torch.float64)
    target = torch.cat([y - y.mean(dim=0), torch.zeros(5, 3)])
    assert_close(probe.weight, torch.linalg.lstsq(torch.cat([x, more]), target).solution)


def test_the_probe_tells_what_can_be_told():
    classes = torch.arange(90) % 3
    features = torch.randn(90, 4) + 6 * torch.nn.functional.one_hot(classes, 4)
    constant = torch.cat([features, torch.ones(90, 1)], dim=1)
    assert (fit_probe(constant[:60], classes[:60])(constant[60:]) == classes[60:]).all()


def test_the_distance_of_thumbnails_is_in_levels_of_255():
    dark, light = torch.full((2, 3, 64, 64), 100, dtype=torch.uint8)
    light += 7
    a, b = thumbnails(torch.stack([dark, light]))
    assert (a - b).norm().item() == pytest.approx(7, rel=1e-4)


def test_a_mirrored_neighbour_is_shown_mirrored(images):
    training = torch.arange(50, len(images))
    drawn = images.pixels[60:80].flip(3)
    features = extract_features(Colours(), [drawn, drawn.flip(3), images.pixels[50:]])
    found = Neighbours.find(features[:20], features[20:40], features[40:], samples=20)
    assert found.sample_mirrored.all()
    assert found.samples.index.tolist() == list(range(10, 30))
    ours, theirs = found.pairs(drawn, images, training)
    assert_close(ours, theirs, rtol=0, atol=0)
