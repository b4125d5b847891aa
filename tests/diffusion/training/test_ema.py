"""The weight average against its closed form."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from diffusion.training.ema import ExponentialMovingAverage


class Weights(nn.Module):
    """One weight, one float buffer and one integer buffer, all set to a value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value))
        self.register_buffer("average", torch.full((2,), 10 * value))
        self.register_buffer("count", torch.tensor(int(value)))

    def set(self, value: float) -> None:
        self.weight.data.fill_(value)
        self.average.fill_(10 * value)
        self.count.fill_(int(value))


def test_the_average_has_its_closed_form_buffers_too():
    module, values = Weights(1.0), [4.0, -2.0, 7.0, 3.0]
    ema = ExponentialMovingAverage(module, halflife_images=100)
    expected = 1.0
    for value in values:
        module.set(value)
        # Far into the run, so that the half-life is not capped.
        ema.update(module, images_seen=1_000_000, batch_size=30)
    decay = 0.5**0.3
    expected = decay**4 * 1.0 + sum(
        (1 - decay) * decay ** (3 - i) * value for i, value in enumerate(values)
    )
    assert_close(ema.module.weight.data, torch.full((2,), expected))
    assert_close(ema.module.average, torch.full((2,), 10 * expected))
    assert ema.module.count == 3  # counts are copied, not averaged


@pytest.mark.parametrize("batch_size", [1, 10, 50, 100])
def test_after_one_half_life_half_of_a_change_has_arrived(batch_size):
    module = Weights(0.0)
    ema = ExponentialMovingAverage(module, halflife_images=100)
    module.set(1.0)
    for _ in range(100 // batch_size):
        ema.update(module, images_seen=1_000_000, batch_size=batch_size)
    assert_close(ema.module.weight.data, torch.full((2,), 0.5))


def test_early_on_the_half_life_is_a_share_of_the_images_seen():
    ema = ExponentialMovingAverage(Weights(0.0), halflife_images=1000, rampup=0.1)
    assert_close(ema.decay(images_seen=500, batch_size=50), 0.5)
    assert_close(ema.decay(images_seen=10_000, batch_size=1000), 0.5)
    assert_close(ema.decay(images_seen=99_000, batch_size=1000), 0.5)


def test_the_first_update_forgets_the_initial_weights():
    module = Weights(5.0)
    ema = ExponentialMovingAverage(module, halflife_images=1000)
    module.set(1.0)
    ema.update(module, images_seen=0, batch_size=16)
    assert_close(ema.module.weight.data, torch.ones(2))


def test_the_average_is_a_copy_that_needs_no_gradient():
    module = Weights(1.0)
    ema = ExponentialMovingAverage(module, halflife_images=100)
    module.set(9.0)
    assert_close(ema.module.weight.data, torch.ones(2))
    assert not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert module.weight.requires_grad
    assert module.training


def test_an_update_leaves_the_module_alone():
    module = Weights(1.0)
    ema = ExponentialMovingAverage(module, halflife_images=100)
    module.set(9.0)
    ema.update(module, images_seen=1_000_000, batch_size=10)
    assert_close(module.weight.data, torch.full((2,), 9.0))
    assert_close(module.average, torch.full((2,), 90.0))


def test_batch_norm_statistics_are_averaged():
    module = nn.BatchNorm2d(3)
    ema = ExponentialMovingAverage(module, halflife_images=10)
    module(torch.randn(8, 3, 4, 4) + 5)
    ema.update(module, images_seen=1_000_000, batch_size=10)
    assert_close(ema.module.running_mean, module.running_mean / 2)
    assert ema.module.num_batches_tracked == 1
