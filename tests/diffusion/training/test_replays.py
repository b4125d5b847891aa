"""What the base draws, so that a fine-tuning remembers it."""

from dataclasses import replace

import pytest
import torch
from studio_fixtures import TINY

from diffusion import Denoiser, generate
from diffusion.training.finetune import load_pictures
from diffusion.training.replays import REPLAY_SEED, draw_replays, mix, replays_per_label

pytestmark = pytest.mark.usefixtures("few_replays")


def test_replays_are_what_the_base_draws_under_every_label(base, photos):
    denoiser = Denoiser.load(base)
    like = load_pictures(photos, denoiser.info)
    made = draw_replays(denoiser, like)
    assert made.classes.tolist() == [0, 1, -1] * 2
    drawn = generate(denoiser, [REPLAY_SEED + 4], class_labels=[1])
    assert (made.pixels[4].int() - drawn[0].int()).abs().max() <= 1  # another batch size


def test_many_labels_share_the_replays():
    assert [replays_per_label(replace(TINY, num_classes=n)) for n in (0, 1, 8)] == [
        6,
        3,
        2,
    ]


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("count", [8, 17, 24])
def test_the_share_of_replays_is_what_was_asked_for(base, photos, keep, count):
    denoiser = Denoiser.load(base)
    own = load_pictures(photos, denoiser.info).subset(range(count))
    made = draw_replays(denoiser, own)
    mixed = mix(own, made, keep)
    shown = torch.tensor([name.startswith("replay") for name in mixed.names]).float().mean()
    assert abs(float(shown) - keep) < 0.02
    assert set(mixed.names) == {*own.names, *made.names}
    assert len({mixed.names.count(name) for name in own.names}) == 1  # none is learned twice
    for index in (0, len(mixed) - 1):
        source = own if mixed.names[index] in own.names else made
        at = source.names.index(mixed.names[index])
        assert torch.equal(mixed.pixels[index], source.pixels[at])
        assert mixed.classes[index] == source.classes[at]
