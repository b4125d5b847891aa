"""Whose turn it is: the queue, clients that share it, and jobs that are stopped."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from jobs import PLAIN, alone, ask_as, assert_same_pixels, finish
from studio_fixtures import wait_until

from diffusion.sampling import draw
from studio.drawing import worker
from studio.drawing.library import ModelLibrary
from studio.drawing.observer import MAX_FRAMES
from studio.drawing.recipe import morph
from studio.drawing.worker import Busy, Studio


def test_a_long_job_takes_turns_with_others(studio, gate):
    gate.close()
    long = studio.submit(morph([PLAIN, dataclasses.replace(PLAIN, seed=1)], frames=20))
    wait_until(lambda: gate.batches == [16])
    short = studio.submit([dataclasses.replace(PLAIN, steps=2)])
    gate.event.set()
    finish(long, short)
    assert gate.batches[1:] == [
        16,
        1,
        8,
    ]  # the short one waits for no last turn
    assert short.finished < long.finished
    assert len(long.pictures) == 40
    assert_same_pixels(long.pictures[33], alone(studio, long.recipes[33]))


def test_a_turn_of_many_steps_has_fewer_pictures(studio, gate, monkeypatch):
    """Nobody waits for minutes until others have had theirs."""
    monkeypatch.setattr(worker, "TURN_STEPS", 40)
    seeds = [dataclasses.replace(PLAIN, seed=seed, steps=10) for seed in range(6)]
    finish(studio.submit(seeds))
    assert gate.batches == [4, 2]
    finish(studio.submit([dataclasses.replace(PLAIN, steps=50, seed=seed) for seed in range(2)]))
    assert gate.batches[2:] == [1, 1]


def test_a_place_in_the_queue_is_told(studio, gate):
    gate.close()
    first = studio.submit([PLAIN])
    wait_until(lambda: gate.steps == 1)
    waiting = [studio.submit([dataclasses.replace(PLAIN, steps=4 + i)]) for i in range(3)]
    assert [studio.place(job) for job in waiting] == [0, 1, 2]
    studio.stop(waiting[0])
    assert [studio.place(job) for job in waiting[1:]] == [0, 1]
    gate.event.set()
    finish(first, *waiting)


def test_too_many_waiting_jobs_are_refused(tiny_folder, gate):
    studio = Studio(ModelLibrary([tiny_folder]), max_waiting=2, draw=gate)
    gate.close()
    jobs = [studio.submit([PLAIN])]
    wait_until(lambda: gate.steps == 1)
    jobs += [studio.submit([PLAIN]), studio.submit([PLAIN])]
    with pytest.raises(Busy, match="try again"):
        studio.submit([PLAIN])
    gate.event.set()
    finish(*jobs)
    assert studio.draw([PLAIN]).done


def test_turns_go_round_by_client(studio, gate):
    """Whoever asks for much waits for it; somebody else is drawn in between."""
    gate.close()
    blocker = studio.submit([PLAIN])
    wait_until(lambda: gate.steps == 1)
    greedy = [ask_as("a", studio, [dataclasses.replace(PLAIN, steps=4 + i)]) for i in range(6)]
    modest = ask_as("b", studio, [dataclasses.replace(PLAIN, steps=20)])
    second = ask_as("c", studio, [dataclasses.replace(PLAIN, steps=21)])
    assert [studio.place(job) for job in (greedy[0], modest, second)] == [0, 1, 2]
    assert [studio.place(job) for job in greedy[1:]] == [3, 4, 5, 6, 7]
    gate.event.set()
    finish(blocker, modest, second, *greedy)
    order = sorted([modest, second, *greedy], key=lambda job: job.finished)
    assert order == [greedy[0], modest, second, *greedy[1:]]


def test_who_comes_again_and_again_does_not_overtake(studio, gate):
    """A job of many turns goes on although new clients come before each."""
    gate.close()
    path = morph([PLAIN, dataclasses.replace(PLAIN, seed=1)], frames=20)
    long = ask_as("long", studio, path)
    wait_until(lambda: gate.batches == [16])
    order, draw_on = [], gate.draw

    def noting(denoiser, start, config, *, callback, preview):
        order.append(len(start))
        if len(order) < 8:
            new = dataclasses.replace(PLAIN, steps=4 + len(order))
            others.append(ask_as(f"new {len(order)}", studio, [new]))
        return draw_on(denoiser, start, config, callback=callback)

    others = [ask_as("new", studio, [dataclasses.replace(PLAIN, steps=2)])]
    gate.draw = noting
    gate.event.set()
    finish(long)
    finish(*others)
    assert [size for size in order if size > 1] == [16, 8]
    assert order.index(8) <= 3


def test_one_client_cannot_take_all_places(tiny_folder, gate):
    studio = Studio(ModelLibrary([tiny_folder]), max_waiting=8, draw=gate)
    gate.close()
    jobs = [studio.submit([PLAIN])]
    wait_until(lambda: gate.steps == 1)
    jobs += [ask_as("a", studio, [PLAIN]) for _ in range(2)]
    with pytest.raises(Busy, match="enough waiting here already"):
        ask_as("a", studio, [PLAIN])
    jobs.append(ask_as("b", studio, [PLAIN]))
    jobs += [studio.submit([PLAIN]) for _ in range(3)]  # the page's own
    gate.event.set()
    finish(*jobs)
    assert ask_as("a", studio, [PLAIN])


def test_stop_ends_within_one_step_and_keeps_what_is_there(studio, gate):
    gate.close()
    job = studio.submit([dataclasses.replace(PLAIN, steps=50)], record="denoised")
    wait_until(lambda: gate.steps == 1)
    studio.stop(job)
    assert not job.done  # its step is still being taken
    gate.event.set()
    finish(job)
    assert gate.steps == 1
    assert job.stopped
    assert job.error is None
    assert job.pictures.shape == (1, 3, 16, 16)
    assert len(job.frames) == 1
    assert torch.equal(job.pictures[0], job.frames[-1])


def test_others_in_the_turn_go_on_when_one_stops(studio, gate):
    gate.close()
    blocker = studio.submit([dataclasses.replace(PLAIN, steps=1)])
    wait_until(lambda: gate.steps == 1)
    stays = studio.submit([dataclasses.replace(PLAIN, seed=1)])
    leaves = studio.submit([dataclasses.replace(PLAIN, seed=2)], record="")
    hold, ended = threading.Event(), []

    def slow(denoiser, start, config, *, callback, preview):
        def second(step):
            stop = callback(step)
            if step.index == 1:
                studio.stop(leaves)
                hold.set()
            ended.append(leaves.done)
            return stop

        return draw(denoiser, start, config, callback=second)

    gate.draw = slow
    gate.event.set()
    finish(blocker, stays, leaves)
    assert hold.is_set()
    assert gate.batches == [1, 2]
    assert ended[:3] == [False, True, True]  # within one step, not with the others
    assert leaves.stopped
    assert not stays.stopped
    assert_same_pixels(stays.pictures[0], alone(studio, stays.recipes[0]))
    whole = alone(studio, leaves.recipes[0])
    assert (leaves.pictures[0].int() - whole.int()).abs().max() > 1  # the estimate of that moment


def test_a_waiting_job_stops_at_once(studio, gate):
    gate.close()
    first = studio.submit([PLAIN])
    wait_until(lambda: gate.steps == 1)
    waits = studio.submit([dataclasses.replace(PLAIN, steps=9)])
    studio.stop(waits)
    assert waits.done
    assert waits.pictures is None
    gate.event.set()
    finish(first)
    studio.draw([PLAIN])
    assert gate.batches == [1, 1]  # it was never drawn


def test_a_long_job_stops_between_its_turns(studio, gate):
    gate.close()
    job = studio.submit(morph([PLAIN, dataclasses.replace(PLAIN, seed=1)], frames=20))
    wait_until(lambda: gate.batches == [16])
    studio.stop(job)
    gate.event.set()
    finish(job)
    studio.draw([PLAIN])
    assert gate.batches == [16, 1]


def test_closing_the_watch_stops_the_job(studio, gate):
    gate.close()
    job = studio.submit([dataclasses.replace(PLAIN, sampler="ddpm", steps=1000)])
    watching = studio.watch(job)
    next(watching)
    wait_until(lambda: gate.steps == 1)
    watching.close()
    gate.event.set()
    finish(job)
    assert job.stopped
    assert gate.steps == 1


def test_updates_tell_the_steps(studio):
    job = studio.submit([dataclasses.replace(PLAIN, sampler="ddpm", steps=60)])
    updates = list(studio.watch(job))
    assert [u.step for u in updates] == sorted(u.step for u in updates)
    assert updates[-1].done
    assert updates[-1].step == updates[-1].total == 60
    assert torch.equal(updates[-1].pictures, job.pictures)
    assert 0 < job.seconds < 20


@pytest.mark.parametrize("record", ["denoised", "noisy"])
def test_steps_are_recorded(studio, record):
    job = studio.draw([dataclasses.replace(PLAIN, seed=s, steps=5) for s in (1, 2)], record=record)
    assert len(job.frames) == 5
    long = studio.draw([dataclasses.replace(PLAIN, sampler="ddpm", steps=130)], record=record)
    assert 40 < len(long.frames) <= MAX_FRAMES + 1


def test_the_two_recordings_differ(studio):
    shown, noisy = (
        studio.draw([dataclasses.replace(PLAIN, steps=5)], record=record).frames
        for record in ("denoised", "noisy")
    )
    assert (shown[0].int() - noisy[0].int()).abs().float().mean() > 5
