"""Live frames: few steps, and fair to those who wait for an ordinary cat."""

from __future__ import annotations

import dataclasses
import threading
import time

import torch
from jobs import PLAIN, ask_as, finish
from studio_fixtures import save_tiny, wait_until

from diffusion import SampleConfig
from studio.drawing.library import ModelLibrary, model_hash
from studio.drawing.live import MAX_LIVE_BATCH, MAX_LIVE_STEPS, live_sampling
from studio.drawing.recipe import consecutive
from studio.drawing.worker import Studio


def test_a_model_is_drawn_quickly_as_it_was_taught_or_in_few_steps():
    student = SampleConfig(sampler="euler", num_steps=2, guidance=1.0)
    assert live_sampling(student) is student
    usual = SampleConfig(sampler="heun", num_steps=20, guidance=2.5, sigma_max=60.0)
    quick = live_sampling(usual)
    assert (quick.sampler, quick.num_steps) == ("fitted", MAX_LIVE_STEPS)
    assert (quick.guidance, quick.sigma_max) == (2.5, 60.0)


def test_a_live_frame_takes_few_steps_and_keeps_the_recipe_of_the_fine_cat(studio, gate):
    recipe = dataclasses.replace(PLAIN, steps=9)
    frame = studio.draw([recipe], live=True)
    assert gate.steps == MAX_LIVE_STEPS == frame.steps_to_take
    assert frame.recipes[0].steps == 9
    fine = studio.draw([recipe])
    assert gate.steps == MAX_LIVE_STEPS + 9
    assert not torch.equal(frame.pictures, fine.pictures)


STUDENT = SampleConfig(sampler="euler", num_steps=2, guidance=1.0)


def library_with_student(folder, *, teacher: str = "") -> ModelLibrary:
    taught_by = model_hash(save_tiny(folder / "tiny.safetensors"))
    path = folder / "tiny-quick.safetensors"
    save_tiny(path, seed=1, sampling=STUDENT, teacher=teacher or taught_by)
    return ModelLibrary([folder])


def test_the_student_of_a_model_draws_its_frames_but_not_its_cats(tmp_path, gate):
    studio = Studio(library_with_student(tmp_path), draw=gate)
    recipe = dataclasses.replace(PLAIN, model="tiny")
    frame = studio.draw([recipe], live=True)
    assert gate.steps == 2 == frame.steps_to_take
    assert frame.recipes[0].model_hash == studio.library.get("tiny").hash
    by_student = studio.draw([dataclasses.replace(recipe, model="tiny-quick")], live=True)
    assert torch.equal(frame.pictures, by_student.pictures)
    fine = studio.draw([recipe])
    assert not torch.equal(fine.pictures, frame.pictures)


def test_a_student_draws_in_its_own_steps_whatever_a_recipe_says(tmp_path, gate):
    studio = Studio(library_with_student(tmp_path), draw=gate)
    asked = dataclasses.replace(PLAIN, model="tiny-quick", steps=30, sampler="heun", guidance=3)
    drawn = studio.draw([asked]).recipes[0]
    assert gate.steps == 2
    assert (drawn.steps, drawn.sampler, drawn.guidance) == (2, "euler", 1.0)


def test_what_other_weights_have_taught_draws_no_frames(tmp_path, gate):
    studio = Studio(library_with_student(tmp_path, teacher="0123456789ab"), draw=gate)
    studio.draw([dataclasses.replace(PLAIN, model="tiny")], live=True)
    assert gate.steps == MAX_LIVE_STEPS


def test_a_preview_is_what_the_codec_makes_of_it_softly(studio, monkeypatch):
    codec = studio.library.get().denoiser.codec
    monkeypatch.setattr(codec, "preview", lambda x0: 255 - codec.decode(x0), raising=False)
    frame = studio.draw([PLAIN], live=True)
    assert torch.equal(studio.draw([PLAIN], live=True, preview=True).pictures, 255 - frame.pictures)


def test_frames_of_several_explorers_are_drawn_together_but_with_no_others(studio, gate):
    gate.close()
    first = ask_as("a", studio, [PLAIN], live=True)
    wait_until(lambda: gate.steps == 1)
    more = [ask_as(name, studio, [PLAIN], live=True) for name in "bcdefg"]
    cat = ask_as("h", studio, [PLAIN])
    gate.event.set()
    finish(first, cat, *more)
    assert gate.batches == [1, 1, MAX_LIVE_BATCH, 2, 2]


def test_an_ordinary_cat_is_drawn_after_each_turn_of_frames(studio, gate):
    gate.close()
    frame = ask_as("a", studio, [PLAIN], live=True)
    wait_until(lambda: gate.steps == 1)
    waiting = [ask_as(name, studio, [PLAIN], live=True) for name in "bcde"]
    cats = ask_as("f", studio, consecutive(PLAIN, 40))
    gate.event.set()
    finish(frame, cats, *waiting)
    assert gate.batches == [1, 16, 2, 16, 2, 8]


def test_frames_are_not_starved_by_ordinary_cats(studio, gate):
    gate.close()
    cats = ask_as("a", studio, consecutive(PLAIN, 48))
    wait_until(lambda: gate.steps == 1)
    frame = ask_as("b", studio, [PLAIN], live=True)
    gate.event.set()
    finish(cats, frame)
    assert gate.batches == [16, 1, 16, 16] or gate.batches == [16, 16, 1, 16]


def test_a_cat_takes_at_most_twice_its_time_beside_four_dreams(studio, gate):
    """Counted in work, not in seconds: decoding takes as long as three steps, and a batch hardly
    less than its pictures one by one, as with the model of 256 pixels on one core."""
    drawn: list[float] = []
    seeds: list[tuple[int, ...]] = []
    cat_alone = 12 + 3

    def draw(denoiser, start, config, *, callback, preview):
        seeds.append(start.seeds)
        drawn.append((config.num_steps + 3) * (0.1 + 0.9 * len(start)))
        time.sleep(0.002)
        return torch.zeros(len(start), 3, 16, 16, dtype=torch.uint8)

    gate.draw = draw
    awake = threading.Event()

    def dream(client: str) -> None:
        while not awake.is_set():
            ask_as(client, studio, [PLAIN], live=True).wait(5)

    dreams = [threading.Thread(target=dream, args=(f"dreamer {i}",)) for i in range(4)]
    for thread in dreams:
        thread.start()
    try:
        wait_until(lambda: len(drawn) > 20)
        for seed in range(100, 120):
            cat = ask_as("somebody", studio, [dataclasses.replace(PLAIN, seed=seed, steps=12)])
            begun = len(drawn)
            cat.wait(5)
            turn = seeds.index((seed,))
            # A turn that had been given but not begun, or else what was being drawn.
            waited_for = drawn[begun:turn] or drawn[begun - 1 : turn]
            frames = sum(work for work in waited_for if work != cat_alone)
            assert frames + cat_alone <= 2 * cat_alone
    finally:
        awake.set()
        for thread in dreams:
            thread.join()
