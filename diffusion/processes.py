"""Several processes that ``accelerate launch`` started, and one piece of work that they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from .device import choose_device

if TYPE_CHECKING:
    from accelerate import PartialState

AT_ONCE = 64  # results of a process that are sent round together: a GPU has to hold those of all

Item = TypeVar("Item")
Result = TypeVar("Result")


def join_processes() -> PartialState:
    """This process among those that were started together, or alone. Call it before loading a
    model, since it chooses the GPU."""
    from accelerate import PartialState  # slow to import
    from accelerate.utils import parse_flag_from_env

    # The CPU has to be asked for: several processes there would else not know of each other.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or choose_device().type == "cpu"
    return PartialState(cpu=cpu)


def shared_bar(total: int, *, of: str, unit: str = "picture", done: int = 0) -> tqdm:
    """A progress bar, which one of several processes shows; none for no work at all."""
    hidden = not total or not join_processes().is_main_process
    return tqdm(total=total, initial=done, unit=unit, desc=of, disable=hidden)


def shared_out(
    items: Sequence[Item], work: Callable[[Item], Result], bar: tqdm, size: Callable[[Item], int]
) -> list[Result]:
    """``work`` done on each of the items, in their order. Each process does every n-th of them, and
    all get all of the results, when the last one has finished.

    ``bar`` (``shared_bar``) gets the ``size`` of what is done. The process that shows it takes the
    others to be as far as itself.
    """
    from accelerate.utils import gather_object

    state = join_processes()
    own: list[tuple[int, Result]] = []
    for first in range(0, len(items), state.num_processes):
        turn = items[first : first + state.num_processes]
        if state.process_index < len(turn):
            number = first + state.process_index
            own.append((number, work(items[number])))
        bar.update(sum(map(size, turn)))
    results: dict[int, Result] = {}
    longest = -(-len(items) // state.num_processes)
    for start in range(0, longest, AT_ONCE):
        results |= dict(gather_object(own[start : start + AT_ONCE]))
    state.wait_for_everyone()  # where there was nothing to do, too
    return [results[number] for number in range(len(items))]
