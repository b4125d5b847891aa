"""How the Generate tab makes films: from the values of its form to what changes on the page.

Each action yields what changes, by the names in ``ShownFilm``; it knows no component.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import gradio as gr

from ..drawing.worker import Busy, Studio, Update
from .films import Film, Pace, film_of, morph_of, require_steps
from .forms import current_recipe, read_morph_form
from .shown import ShownFilm
from .stage import film_text, status_html
from .visits import Visits


class FilmActions:
    """The films that visitors ask for; Stop ends them as it ends every job of ``visits``."""

    def __init__(self, studio: Studio, visits: Visits) -> None:
        self.studio, self.visits = studio, visits

    def animate(
        self, recipe: dict | None, kind: str, seconds: Any, speed: Any, hold: Any,
        request: gr.Request,
    ) -> Iterator[ShownFilm]:  # fmt: skip
        """How the cat on the stage formed, as GIF and MP4: drawn again, so nothing need be kept."""
        try:
            pace = Pace(seconds, speed, hold)
            require_steps()
            record = "noisy" if kind == "the noisy picture" else "denoised"
            job = self.studio.submit([current_recipe(recipe)], record=record)
            yield from film_progress(self.visits.watch(job, request))
            yield finished_film(film_of(job, pace))
        except (ValueError, Busy) as error:
            yield {"note": status_html(str(error), error=True)}

    def morph(
        self, seeds: Any, coats: list[str], frames: Any, coat: Any, steps: Any, sampler: Any,
        guidance: Any, model: Any, request: gr.Request,
    ) -> Iterator[ShownFilm]:  # fmt: skip
        """A loop from cat to cat, as GIF and MP4."""
        try:
            recipes = read_morph_form(
                seeds, coats or [coat], frames, steps, sampler, guidance, model,
                self.studio.library,
            )  # fmt: skip
            job = self.studio.submit(recipes)
            yield from film_progress(self.visits.watch(job, request))
            yield finished_film(morph_of(job))
        except (ValueError, Busy) as error:
            yield {"note": status_html(str(error), error=True)}


def film_progress(updates: Iterable[Update]) -> Iterator[ShownFilm]:
    """How far a film is. The one before it goes: nobody shall download that for this one."""
    hidden = gr.update(visible=False)
    earlier: ShownFilm = {"film": hidden, "gif": hidden, "mp4": hidden}
    for update in updates:
        yield {**earlier, "note": status_html(film_text(update), working=not update.done)}
        earlier = {}


def finished_film(film: Film) -> ShownFilm:
    """A film that is ready, and what downloads it."""
    shown, gif, mp4 = (
        gr.update(value=path, visible=True) for path in (film.gif, film.gif, film.mp4)
    )
    return {"film": shown, "gif": gif, "mp4": mp4, "note": status_html("")}
