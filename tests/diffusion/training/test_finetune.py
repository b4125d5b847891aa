"""Fine-tuning: what is added to the network, what it is shown, and that no run is ever lost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawing import cat, cats, write_folder
from PIL import Image
from studio_fixtures import LABELS, TINY, save_tiny
from training_runs import after, metrics, progress

from diffusion import Denoiser
from diffusion.checkpoint import WEIGHTS_NAME, CheckpointInfo, read_checkpoint, read_tensors
from diffusion.config import FinetuneConfig
from diffusion.denoiser import build_unet
from diffusion.parameterizations import EDM
from diffusion.training import finetune, objectives
from diffusion.training.run_folder import STATE_NAME, STEPS_NAME

ROOT = Path(__file__).resolve().parents[3]
NEW = len(LABELS)  # index of the new label
pytestmark = pytest.mark.usefixtures("few_replays")


def config(**changes) -> FinetuneConfig:
    return FinetuneConfig(**{"label": "Mia", "images": 64, "batch_size": 4, **changes})


# -- the network that learns ------------------------------------------------------------------


def test_a_new_label_begins_as_the_null_label_and_changes_nothing(base):
    state, info = read_checkpoint(base)
    grown, told = finetune.add_label(state, info, "Mia")
    assert told.labels == (*LABELS, "Mia")
    before, after = build_unet(info.model).eval(), build_unet(told.model).eval()
    before.load_state_dict(state)
    after.load_state_dict(grown)
    x, noise = torch.randn(4, 3, 16, 16), torch.zeros(4)
    null = before(x, noise)
    assert torch.equal(after(x, noise), null)
    assert torch.equal(after(x, noise, torch.full((4,), NEW)), null)
    old = torch.arange(4) % NEW
    assert torch.equal(after(x, noise, old), before(x, noise, old))
    assert not torch.equal(before(x, noise, old), null)


def test_a_new_label_may_begin_as_another(base):
    state, info = read_checkpoint(base)
    rows = finetune.add_label(state, info, "Mia", like=1)[0]["class_embedding.weight"]
    old = state["class_embedding.weight"]
    assert torch.equal(rows, torch.stack([old[0], old[1], old[1], old[2]]))


class Colours(torch.nn.Module):
    """The ideal network of classes that are one colour each: whatever it is shown, it sees that."""

    def __init__(self, colours: list[float]) -> None:
        super().__init__()
        self.colours = torch.nn.Parameter(torch.tensor(colours))

    def forward(self, x, c_noise, class_labels):
        c_skip, c_out, c_in, _ = EDM().coefficients((4 * c_noise).exp()[:, None, None, None])
        return (self.colours[class_labels][:, None, None, None] - c_skip * x / c_in) / c_out


@pytest.mark.parametrize(("level", "expected"), [(10, 0), (200, 1), (128, 2)])
def test_the_likeliest_label_is_the_one_that_denoises_best(base, photos, level, expected):
    """Classes black, white and (the null class) grey."""
    info = read_checkpoint(base)[1]
    denoiser = Denoiser(Colours([-1.0, 1.0, 0.0]), info=info)
    images = finetune.load_pictures(photos, info)
    images = replace(images, pixels=torch.full_like(images.pixels, level))
    assert finetune.likeliest_label(denoiser, images, config().training()) == expected


def test_pictures_from_the_whole_set_are_tried_with_the_labels(base, photos):
    """100 white ones by name come before 200 black ones."""
    info = read_checkpoint(base)[1]
    images = finetune.load_pictures(photos, info).subset([0] * 300)
    pixels = torch.zeros_like(images.pixels)
    pixels[:100] = 255
    denoiser = Denoiser(Colours([-1.0, 1.0, 0.0]), info=info)
    assert (
        finetune.likeliest_label(denoiser, replace(images, pixels=pixels), config().training()) == 0
    )


def test_an_unlabelled_network_gets_its_first_label():
    model = replace(TINY, num_classes=0)
    unet = build_unet(model)
    torch.nn.init.normal_(unet.conv_out.weight)
    grown, told = finetune.add_label(unet.state_dict(), CheckpointInfo(model), "Mia")
    after = build_unet(told.model)
    after.load_state_dict(grown)
    x, noise = torch.randn(2, 3, 16, 16), torch.zeros(2)
    assert torch.equal(after(x, noise, torch.tensor([0, 1])), unet(x, noise))


def test_a_run_begins_with_the_likeliest_label(base, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "likeliest_label", lambda *_: 1)
    rows = finetune._prepare(base, photos, tmp_path, config()).network.class_embedding.weight
    assert torch.equal(rows[NEW], rows[1])
    assert not torch.equal(rows[NEW], rows[NEW + 1])


def test_an_unlabelled_base_can_be_taught(photos, tmp_path):
    base = save_tiny(tmp_path / "base.safetensors", labels=())
    assert finetune.finetune(base, photos, tmp_path / "run", config(images=16))
    assert read_checkpoint(tmp_path / "run" / WEIGHTS_NAME)[1].labels == ("Mia",)


def test_a_guide_goes_along(photos, tmp_path):
    base = save_tiny(tmp_path / "base.safetensors")
    weak = save_tiny(tmp_path / "weak.safetensors", labels=(), config=replace(TINY, channels=8))
    Denoiser.load(base).guided_by(Denoiser.load(weak)).save(base)
    assert finetune.finetune(base, photos, tmp_path / "run", config(images=16))
    tuned = Denoiser.load(tmp_path / "run" / WEIGHTS_NAME)
    theirs = Denoiser.load(weak).model.state_dict()
    for name, tensor in tuned.guide.model.state_dict().items():
        assert torch.equal(tensor, theirs[name])


def test_a_known_label_is_refused(base):
    with pytest.raises(ValueError, match="already has a label 'tabby'"):
        finetune.add_label(*read_checkpoint(base), "tabby")


def test_a_student_is_not_fine_tuned(base):
    state, info = read_checkpoint(base)
    with pytest.raises(ValueError, match=r"is a student\. Fine-tune its teacher"):
        finetune.add_label(state, replace(info, teacher="0123456789ab"), "Mia")


def test_what_may_change(base):
    model = replace(read_checkpoint(base)[1].model, fine_channels=8)  # two levels of one block
    names = [name for name, _ in build_unet(model).named_parameters()]

    def chosen(layers: str) -> set[str]:
        test = finetune.trainable(layers, model)
        return {".".join(name.split(".")[:2]) for name in names if test(name)}

    assert finetune.trainable("all", model)("anything")
    assert chosen("label") == {"class_embedding.weight"}
    deep = {"down.1", "middle.0", "middle.1", "up.0", "class_embedding.weight"}
    assert chosen("deep") == deep | {"noise_mlp.0", "noise_mlp.2"}


# -- what it is shown -------------------------------------------------------------------------


def test_pictures_carry_the_new_label_and_some_are_held_out(base, photos):
    _, info = finetune.add_label(*read_checkpoint(base), "Mia")
    images = finetune.load_pictures(photos, info)
    assert set(images.classes.tolist()) == {NEW}
    training, heldout = finetune.hold_out(images)
    assert len(training) == 21
    assert len(heldout) == 3 * finetune.HELDOUT_REPEATS
    assert not set(training.names) & set(heldout.names)


def test_many_pictures_are_looked_at_less_often(base, tmp_path):
    """Every checkpoint looks at all of them: no more than at a few hundred."""
    images = finetune.load_pictures(
        write_folder(tmp_path / "many", cats(168)), read_checkpoint(base)[1]
    )
    assert len(finetune.hold_out(images)[1]) == 21 * 12


def test_eight_pictures_are_enough_and_seven_are_not(base, tmp_path):
    _, info = read_checkpoint(base)
    eight = finetune.load_pictures(write_folder(tmp_path / "eight", cats(8)), info)
    assert len(finetune.hold_out(eight)[0]) == 7
    with pytest.raises(ValueError, match="has 7 usable pictures; at least 8"):
        finetune.load_pictures(write_folder(tmp_path / "seven", cats(7)), info)


def test_too_many_pictures_are_refused(base, photos, monkeypatch):
    monkeypatch.setattr(finetune, "MAX_PICTURES", 23)
    with pytest.raises(ValueError, match="At most 23 pictures can be used, and there are 24"):
        finetune.load_pictures(photos, read_checkpoint(base)[1])


# -- the run ----------------------------------------------------------------------------------


def test_a_whole_run_leaves_a_model_that_knows_the_new_label(base, photos, tmp_path):
    out = tmp_path / "run"
    assert finetune.finetune(base, photos, out, config())
    told = progress(out)
    assert (told["state"], told["images"], told["fraction"]) == ("finished", 64, 1.0)
    assert told["best_heldout_loss"] > 0
    weights, info = read_checkpoint(out / WEIGHTS_NAME)
    assert info.labels == (*LABELS, "Mia")
    assert info.history == (f"{told['best_images']:,} images of pictures of Mia",)
    before = read_checkpoint(base)[0]
    assert not torch.equal(weights["conv_in.weight"], before["conv_in.weight"])
    lines = metrics(out)
    assert [line["images"] for line in lines if line["heldout_loss"]] == list(range(8, 72, 8))
    losses = {line["images"]: line["heldout_loss"] for line in lines if line["heldout_loss"]}
    assert told["best_heldout_loss"] == min(losses.values())
    assert losses[told["best_images"]] <= 1.02 * min(losses.values())
    steps = sorted(path.name for path in (out / STEPS_NAME).iterdir())
    assert steps == [f"{images:09d}.safetensors" for images in range(24, 72, 8)]
    samples = {path.name for path in (out / "samples").iterdir()}
    assert samples == {"base.png", *(f"{images:09d}.png" for images in range(8, 72, 8))}


def test_the_base_draws_the_seeds_of_the_samples(base, photos, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(finetune, "save_grid", lambda p, path, **_: drawn.update({path.name: p}))
    finetune.finetune(base, photos, tmp_path, config(images=8))
    expected = finetune.generate(Denoiser.load_for_sampling(base), objectives.SAMPLE_SEEDS[:2])
    assert torch.equal(drawn["base.png"], expected)


@pytest.mark.parametrize(("keep", "replays"), [(0.0, 0.0), (0.5, 0.5)])
def test_a_run_is_made_of_its_settings(base, photos, tmp_path, keep, replays):
    run = finetune._prepare(base, photos, tmp_path, config(lr=0.0125, keep=keep))
    shown = [name.startswith("replay") for name in run.objective.images.names]
    assert sum(shown) / len(shown) == pytest.approx(replays, abs=0.02)
    assert run.peak_lrs[0] == 0.0125


def test_a_run_goes_on_with_the_share_it_began_with(base, photos, tmp_path):
    assert not finetune.finetune(base, photos, tmp_path, config(), stop=after(2))
    with pytest.raises(ValueError, match=r"started with --keep 0\.3"):
        finetune.finetune(base, photos, tmp_path, config(keep=0.5))
    assert finetune.finetune(base, photos, tmp_path, config())


def test_how_a_run_stands_is_told_as_it_goes(base, photos, tmp_path):
    run = finetune._prepare(base, photos, tmp_path, config(images=None, minutes=1.0))
    run.progress.images, run.progress.seconds = 60, 15.0
    told = finetune._standing(run)
    assert (told["fraction"], told["images_per_second"], told["seconds_left"]) == (0.25, 4.0, 45.0)
    file = finetune.ProgressFile(tmp_path)
    finetune._report(file, run, torch.tensor(0.5))
    assert progress(tmp_path)["loss"] == 0.5
    run.config = replace(run.config, images=240, minutes=None)
    assert finetune._standing(run)["seconds_left"] == 45.0


def test_frozen_layers_stay_as_they_are(base, photos, tmp_path):
    finetune.finetune(base, photos, tmp_path, config(images=16, layers="label"))
    weights, before = read_checkpoint(tmp_path / WEIGHTS_NAME)[0], read_checkpoint(base)[0]
    changed = [name for name, tensor in before.items() if not torch.equal(weights[name], tensor)]
    assert changed == ["class_embedding.weight"]
    new = weights["class_embedding.weight"]
    assert not torch.equal(new[NEW], before["class_embedding.weight"][-1])


@pytest.mark.slow
def test_it_learns_the_new_cat_and_keeps_the_old_ones(base, photos, tmp_path):
    """Pale photos: the new label turns pale, the others hardly move."""
    folder = tmp_path / "pale"
    folder.mkdir()
    for i in range(12):
        Image.blend(cat(i), Image.new("RGB", (32, 32), "white"), 0.8).save(folder / f"{i}.png")
    settings = config(images=3_000, batch_size=8, keep=0.5)
    finetune.finetune(base, folder, tmp_path / "run", settings)
    old, new = Denoiser.load(base), Denoiser.load(tmp_path / "run" / WEIGHTS_NAME)
    draw = lambda denoiser, label: finetune.generate(  # noqa: E731
        denoiser, range(8), class_labels=[label] * 8
    ).float()
    assert draw(new, NEW).mean() > 200
    assert draw(old, 2).mean() < 150
    for label in range(NEW):  # that which the new one began as, too
        assert abs(draw(new, label).mean() - draw(old, label).mean()) < 10


@pytest.mark.parametrize(("falling", "seen", "best"), [(2, 48, 16), (6, 64, 48)])
def test_a_run_that_gets_worse_keeps_its_best(base, photos, tmp_path, falling, seen, best):
    """Given up on, or at the end of its budget before it is."""
    losses = iter([*[0.5] * (falling - 1), 0.4, *[0.6] * 100])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "heldout_loss", lambda *_, **__: next(losses))
        assert finetune.finetune(base, photos, tmp_path, config())
    told = progress(tmp_path)
    assert told["state"] == "finished"
    assert "was rising" in told["message"]
    assert (told["images"], told["best_images"]) == (seen, best)
    assert read_checkpoint(tmp_path / WEIGHTS_NAME)[1].history[-1].startswith(f"{best} images")


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(base, photos, tmp_path):
    assert finetune.finetune(base, photos, tmp_path / "whole", config())
    assert not finetune.finetune(base, photos, tmp_path / "parts", config(), stop=after(5))
    assert progress(tmp_path / "parts")["state"] == "stopped"
    assert progress(tmp_path / "parts")["images"] == 20
    assert finetune.finetune(base, photos, tmp_path / "parts", config())
    whole, parts = (read_tensors(tmp_path / run / STATE_NAME)[0] for run in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_a_failure_is_told_where_the_page_looks(base, tmp_path):
    with pytest.raises(ValueError, match="usable pictures"):
        finetune.finetune(base, write_folder(tmp_path / "few", cats(3)), tmp_path / "run", config())
    told = progress(tmp_path / "run")
    assert told["state"] == "failed"
    assert "has 3 usable pictures" in told["message"]


def test_memory_that_runs_out_before_the_training_is_told_too(base, photos, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

    monkeypatch.setattr(finetune, "generate", fail)
    with pytest.raises(RuntimeError):
        finetune.finetune(base, photos, tmp_path, config())
    assert progress(tmp_path)["state"] == "failed"
    assert progress(tmp_path)["message"] == "There is not enough memory."
