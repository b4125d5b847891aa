"""From seeds and settings to pictures."""

import dataclasses
from itertools import pairwise

import pytest
import torch
from helpers import (
    SMALL,
    small_denoiser,
)
from torch.testing import assert_close

from diffusion import SAMPLERS, SampleConfig, generate
from diffusion.codec import to_float, to_uint8
from diffusion.guidance import Guided
from diffusion.sampling import (
    MAX_SEED,
    Start,
    draw,
    from_seeds,
    label_weights,
    noise_level,
    sampling_sigmas,
    seed_noise,
    slerp,
)
from diffusion.schedules import ddpm_sigmas, karras_sigmas

LABELLED = dataclasses.replace(SMALL, num_classes=2)


@pytest.fixture(scope="module")
def denoiser():
    return small_denoiser()


@pytest.fixture(scope="module")
def labelled():
    return small_denoiser(LABELLED)


def assert_same_pictures(pictures: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal, but for values that the last bit of a sum carried over the edge of rounding.

    Matrix products of another batch size may add in another order.
    """
    difference = (pictures.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_one_seed_gives_one_picture_at_any_place_in_any_batch(labelled, sampler, guidance):
    config = SampleConfig(sampler=sampler, num_steps=6, guidance=guidance)
    seeds, labels = [11, 5, MAX_SEED, 0], [0, 1, 2, 1]
    together = generate(labelled, seeds, config, class_labels=labels)
    backwards = generate(labelled, seeds[::-1], config, class_labels=labels[::-1])
    assert_same_pictures(backwards.flip(0), together)
    for i in range(4):
        alone = generate(labelled, seeds[i : i + 1], config, class_labels=labels[i : i + 1])
        assert_same_pictures(alone, together[i : i + 1])
    # The pictures are pictures: they differ, and are neither flat nor all clipped.
    assert len(together.flatten(1).unique(dim=0)) == 4
    assert (together.float().std(dim=(1, 2, 3)) > 5).all()
    assert ((together > 0) & (together < 255)).float().mean() > 0.2


def test_pictures_are_uint8_of_the_size_of_the_model(denoiser):
    pictures = generate(denoiser, range(3), SampleConfig(num_steps=2))
    assert pictures.shape == (3, 3, 8, 8)
    assert pictures.dtype == torch.uint8
    assert generate(denoiser, [4]).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_its_sampler_on_the_noise_of_its_seed(denoiser, sampler):
    config = SampleConfig(sampler=sampler, num_steps=4, sigma_max=40.0)
    generator = torch.Generator().manual_seed(6)

    def noise():
        return torch.randn((3, 8, 8), generator=generator)[None]

    sigmas = sampling_sigmas(config)
    x0 = SAMPLERS[sampler](denoiser, noise() * sigmas[0].float(), sigmas, noise=noise)
    assert torch.equal(generate(denoiser, [6], config), to_uint8(x0))


def test_the_seed_labels_and_settings_matter(labelled):
    base = generate(labelled, [1], SampleConfig(num_steps=4), class_labels=[0])
    assert not torch.equal(
        base, generate(labelled, [2], SampleConfig(num_steps=4), class_labels=[0])
    )
    assert not torch.equal(
        base, generate(labelled, [1], SampleConfig(num_steps=4), class_labels=[1])
    )
    guided = SampleConfig(num_steps=4, guidance=3.0)
    assert not torch.equal(base, generate(labelled, [1], guided, class_labels=[0]))


def test_unlabelled_pictures_are_those_of_the_null_class(labelled):
    config = SampleConfig(num_steps=4, guidance=3.0)
    unlabelled = generate(labelled, [1, 2], config)
    assert torch.equal(unlabelled, generate(labelled, [1, 2], config, class_labels=[2, 2]))


def test_guidance_is_applied_with_the_null_class_of_the_model(labelled):
    config = SampleConfig(sampler="euler", num_steps=3, guidance=2.5)
    sigmas = sampling_sigmas(config)
    x = sigmas[0].float() * torch.randn((3, 8, 8), generator=torch.Generator().manual_seed(8))[None]
    limits = {k: getattr(config, k) for k in ("texture_below", "texture_share")}
    guided = Guided(labelled, 2.5, null_label=2, below=config.guided_below, **limits)
    x0 = SAMPLERS["euler"](guided, x, sigmas, class_labels=torch.tensor([1]))
    assert torch.equal(generate(labelled, [8], config, class_labels=[1]), to_uint8(x0))


@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("from_picture", [False, True])
def test_guidance_leads_away_from_the_guide_that_a_model_has(label, from_picture):
    guided = small_denoiser(LABELLED, guide=dataclasses.replace(SMALL, channels=8))
    config = SampleConfig(
        sampler="euler", num_steps=3, guidance=2.5, sigma_max=1.0, guided_below=1.0
    )
    sigmas = sampling_sigmas(config)
    x = sigmas[0].float() * torch.randn((3, 8, 8), generator=torch.Generator().manual_seed(8))[None]
    start = from_seeds(guided, [8], None if label is None else [label])
    if from_picture:
        picture = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8)
        start = dataclasses.replace(start, picture=picture)
        x = x + to_float(picture)

    def lead(x, sigma, labels):
        weak = guided.guide(x, sigma)
        weight = 1.6 if sigma < config.texture_below else 2.5
        return weak + weight * (guided(x, sigma, labels) - weak)

    labels = None if label is None else torch.tensor([label])
    x0 = SAMPLERS["euler"](lead, x, sigmas, class_labels=labels)
    assert_same_pictures(draw(guided, start, config), to_uint8(x0))


@pytest.mark.parametrize(
    ("labels", "pictures"), [(None, 12), ([2, 2, 2, 2], 12), ([2, 0, 2, 1], 24), ([0, 0, 0, 0], 24)]
)
def test_guidance_from_the_null_label_to_itself_costs_nothing(labels, pictures):
    denoiser, seen = small_denoiser(LABELLED), []
    denoiser.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    config = SampleConfig(num_steps=3, guidance=2.5, sigma_max=1.0, guided_below=1.0)
    generate(denoiser, range(4), config, class_labels=labels)
    assert sum(seen) == pictures


def test_the_grid_is_that_of_the_sampler():
    assert_close(sampling_sigmas(SampleConfig(sampler="ddpm", num_steps=30)), ddpm_sigmas(30))
    config = SampleConfig(sampler="heun", num_steps=5, sigma_min=0.1, sigma_max=9.0, rho=3.0)
    expected = karras_sigmas(5, sigma_min=0.1, sigma_max=9.0, rho=3.0)
    assert_close(sampling_sigmas(config), expected)


@pytest.mark.parametrize("sampler", ["heun", "ddpm"])
@pytest.mark.parametrize(
    ("strength", "taken"), [(1.0, 10), (0.5, 5), (0.31, 4), (0.1, 2), (0.01, 1)]
)
def test_strength_keeps_the_last_part_of_the_grid(sampler, strength, taken):
    config = SampleConfig(sampler=sampler, num_steps=10, strength=strength)
    sigmas, whole = (
        sampling_sigmas(config),
        sampling_sigmas(dataclasses.replace(config, strength=1.0)),
    )
    assert config.steps_to_take == taken
    assert torch.equal(sigmas[1:], whole[-taken:])  # the first is the strength's own
    assert_close(sigmas[0].item(), noise_level(config))


@pytest.mark.parametrize("sampler", ["heun", "ddpm"])
@pytest.mark.parametrize("steps", [1, 2, 12, 100])
def test_every_strength_has_a_noise_level_of_its_own_at_any_number_of_steps(sampler, steps):
    levels = []
    for strength in (i / 200 for i in range(1, 201)):
        config = SampleConfig(sampler=sampler, num_steps=steps, strength=strength)
        sigmas = sampling_sigmas(config)
        assert (sigmas[1:] < sigmas[:-1]).all()
        other = noise_level(dataclasses.replace(config, num_steps=7))
        assert_close(sigmas[0].item(), other)
        levels.append(sigmas[0].item())
    assert levels == sorted(set(levels))
    assert max(b / a for a, b in pairwise(levels[20:])) < 1.15  # no jumps
    assert levels[-1] == sampling_sigmas(SampleConfig(sampler=sampler, num_steps=steps))[0]


@pytest.mark.parametrize("steps", [2, 3, 6])
@pytest.mark.parametrize("strength", [0.05, 0.3, 0.4, 0.5, 0.6, 0.8, 0.99])
def test_a_strength_is_the_same_noise_for_a_student_whose_last_step_begins_at_much(strength, steps):
    usual = SampleConfig(strength=strength)
    student = dataclasses.replace(usual, sampler="euler", num_steps=steps, sigma_min=2.86)
    sigmas = sampling_sigmas(student)
    assert_close(sigmas[0].item(), noise_level(usual))
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


def test_the_noise_level_of_a_strength_is_on_the_curve_of_karras():
    config = SampleConfig(strength=0.3, sigma_min=0.01, sigma_max=9.0, rho=3.0)
    low, high = 0.01 ** (1 / 3), 9 ** (1 / 3)
    assert noise_level(config) == pytest.approx((high + 0.7 * (low - high)) ** 3, rel=1e-5)
    assert noise_level(dataclasses.replace(config, strength=1.0)) == pytest.approx(9.0)


def test_the_strengths_of_the_slider_give_pictures_of_their_own(denoiser):
    start = picture_start(denoiser, [1])
    drawn = set()
    for i in range(1, 21):
        config = SampleConfig(sampler="euler", strength=i / 20)
        drawn.add(draw(denoiser, start, config).numpy().tobytes())
    assert len(drawn) == 20


def test_a_little_strength_at_one_step_changes_a_little(denoiser):
    start = picture_start(denoiser, [1])
    config = SampleConfig(sampler="euler", num_steps=1, strength=0.01)
    assert (draw(denoiser, start, config).float() - start.picture.float()).abs().mean() < 4


def picture_start(denoiser, seeds, keep=None) -> Start:
    picture = torch.randint(12, 244, (len(seeds), 3, 8, 8), dtype=torch.uint8)
    start = from_seeds(denoiser, seeds)
    return dataclasses.replace(start, picture=picture, keep=keep)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_kept_part_of_a_picture_comes_back_exactly(denoiser, sampler, strength):
    keep = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    keep[0, :, :4] = True
    keep[1, :, :, 2:5] = True
    start = picture_start(denoiser, [1, 2], keep)
    config = SampleConfig(sampler=sampler, num_steps=6, strength=strength)
    drawn, picture = draw(denoiser, start, config), start.picture
    keep = keep.expand_as(picture)
    assert torch.equal(drawn[keep], picture[keep])
    assert (drawn[~keep] != picture[~keep]).float().mean() > 0.5


def test_a_picture_changes_more_with_more_strength(denoiser):
    start = picture_start(denoiser, [1, 2, 3, 4])
    picture = start.picture.float()
    changes = []
    for strength in (0.01, 0.5, 1.0):
        config = SampleConfig(sampler="euler", num_steps=10, strength=strength)
        changes.append((draw(denoiser, start, config).float() - picture).abs().mean().item())
    assert changes[0] < 4  # the last step starts at sigma 0.023, 3 levels of 255
    assert changes == sorted(changes)


def test_sampling_from_a_picture_starts_at_the_picture_and_noise(denoiser):
    start = picture_start(denoiser, [1])
    config, steps = SampleConfig(sampler="euler", num_steps=8, strength=0.5), []
    draw(denoiser, start, config, callback=steps.append)
    sigmas = sampling_sigmas(config)
    x = to_float(start.picture) + sigmas[0].float() * start.noise
    assert_close(steps[0].denoised, denoiser(x, sigmas[0].item()))
    assert len(steps) == 4


def test_generate_draws_from_the_plain_start_of_its_seeds(labelled):
    config = SampleConfig(sampler="ddpm", num_steps=4)
    start = from_seeds(labelled, [3, 9], [0, 2])
    pictures = draw(labelled, start, config)
    assert torch.equal(generate(labelled, [3, 9], config, class_labels=[0, 2]), pictures)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_joined_starts_give_the_pictures_of_each(labelled, sampler):
    config = SampleConfig(sampler=sampler, num_steps=4, guidance=2.0)
    keep = torch.rand(3, 1, 8, 8) > 0.5
    starts = [
        dataclasses.replace(
            picture_start(labelled, seeds, keep[: len(seeds)]),
            labels=label_weights(labelled, labels, len(seeds)),
        )
        for seeds, labels in (([4], [1]), ([6, 5], [0, 2]))
    ]
    joined = Start.join(starts)
    assert len(joined) == 3
    together = draw(labelled, joined, config)
    alone = torch.cat([draw(labelled, start, config) for start in starts])
    assert_same_pictures(together, alone)
    assert_same_pictures(draw(labelled, joined.rows(slice(1, 3)), config), together[1:])


def test_plain_starts_join_without_a_picture(denoiser):
    joined = Start.join([from_seeds(denoiser, [1]), from_seeds(denoiser, [2, 3])])
    assert joined.seeds == (1, 2, 3)
    assert joined.picture is None
    assert joined.keep is None
    assert torch.equal(joined.noise, from_seeds(denoiser, [1, 2, 3]).noise)


def test_labels_become_one_hot_weights_of_the_null_class_by_default(labelled, denoiser):
    assert label_weights(labelled, [1, 0], 2).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert label_weights(labelled, None, 2).tolist() == [[0, 0, 1]] * 2
    assert label_weights(denoiser, None, 1).tolist() == [[1]]


def test_slerp_goes_from_one_noise_to_the_other_on_the_sphere(denoiser):
    a, b = seed_noise(denoiser, [1, 2]).double()
    b = b * a.norm() / b.norm()
    assert_close(slerp(a, b, 0.0), a)
    assert_close(slerp(a, b, 1.0), b)
    # Equal steps are equal angles, at an unchanged length: every one is still likely noise.
    walk = [slerp(a, b, t / 4) for t in range(5)]
    for point in walk:
        assert_close(point.norm(), a.norm())
    strides = torch.stack([(q - p).norm() for p, q in pairwise(walk)])
    assert_close(strides, strides.mean().expand(4))


def test_slerp_between_equal_noises_stays_there(denoiser):
    (a,) = seed_noise(denoiser, [1])
    assert_close(slerp(a, a.clone(), 0.3), a)


def test_a_callback_sees_the_steps_and_can_stop_with_a_picture(denoiser):
    steps = []

    def stop_at_two(step):
        steps.append(step)
        return step.index == 2

    pictures = generate(denoiser, [3], SampleConfig(num_steps=6), callback=stop_at_two)
    assert len(steps) == 2
    assert steps[0].total == 6
    assert torch.equal(pictures, to_uint8(steps[-1].denoised))


def test_an_unknown_sampler_is_refused_by_a_sentence_that_lists_them(denoiser):
    with pytest.raises(ValueError, match=r"no sampler 'plms'.*dpmpp_2m.*\."):
        generate(denoiser, [0], SampleConfig(sampler="plms"))


@pytest.mark.parametrize("class_labels", [[3, 0], [-1, 0], [0], [0, 1, 2], [[0, 1]]])
def test_labels_that_do_not_fit_are_refused(labelled, class_labels):
    with pytest.raises(ValueError, match=r"^2 pictures need 2 class labels, each from 0 to 2\.$"):
        generate(labelled, [0, 1], class_labels=class_labels)


def test_no_seed_is_refused(denoiser):
    with pytest.raises(ValueError, match=r"^Give at least one seed\.$"):
        generate(denoiser, [])


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 0.5, "7"])
def test_a_seed_out_of_range_is_refused(denoiser, seed):
    with pytest.raises(ValueError, match=r"A seed must be .*\."):
        generate(denoiser, [0, seed])


def test_the_picture_of_a_seed_has_not_changed(denoiser):
    # A change detector: the numbers mean nothing, and a change of them may be meant.
    picture = generate(denoiser, [0], SampleConfig(num_steps=6))[0]
    golden = [[203, 39, 205, 103], [96, 32, 22, 124], [9, 0, 142, 50]]
    assert_close(picture[:, 3, ::2].int().tolist(), golden, rtol=0, atol=1)
