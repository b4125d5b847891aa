"""The Explore tab: its layout, and which action each of its events starts.

Frames do not pass through Gradio: the scripts ``live.js``, ``explore.js`` and ``dream.js`` fetch
them from ``/live``. What is wired here is the model and the film.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...drawing.worker import Busy, Studio
from ..choice import Choice
from ..film_actions import film_progress, finished_film
from ..films import morph_of
from ..shown import ShownFilm
from ..stage import status_html
from ..tools import film_parts
from ..visits import Visits
from ..wiring import LAST, PRIVATE, start
from .forms import read_film
from .frame import MAP, VIEW, about_html


class ExploreActions:
    """What the tab asks Gradio for; each answers by name and knows no component."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.visits = studio, Visits(studio)

    def about(self, model: str) -> str:
        """Which model draws; the page's own where the chosen one has gone."""
        library = self.studio.library
        loaded = library.get(model if model in library.names else "")
        titles = {name: title for title, name in library.choices}
        return about_html(loaded, titles.get(loaded.name, loaded.name))

    def film(self, values: Any, request: gr.Request) -> Iterator[ShownFilm]:
        """The last seconds of a dream as GIF and MP4, drawn again as they were seen."""
        try:
            job = self.studio.submit(read_film(values, self.studio.library), live=True)
            yield from film_progress(self.visits.watch(job, request))
            yield finished_film(morph_of(job))
        except (ValueError, Busy) as error:
            yield {"note": status_html(str(error), error=True)}


class ExploreTab:
    """Builds the tab; all work is done by its actions and the scripts."""

    def __init__(self, studio: Studio) -> None:
        self.actions = ExploreActions(studio)

    def build(self, page: gr.Blocks, model: Choice) -> None:
        """Lay out the tab inside ``page``; its cats are of the ``model`` that is chosen there."""
        with gr.Row(equal_height=False, elem_id="explore-desk"):
            with gr.Column(scale=6, min_width=320, elem_id="explore-left"):
                gr.HTML(VIEW)
            with gr.Column(scale=5, min_width=300, elem_id="explore-right"):
                gr.HTML(MAP)
                about = gr.HTML("")
                save = gr.Button("Save the last ten seconds", size="sm", elem_id="save-dream")
                outputs = film_parts("dream-film", note="dream-note")
        lasted = gr.Textbox("", visible=False)  # what the browser knows of the dream, as JSON
        start(
            save.click, self.actions.film, [lasted], outputs, js="() => [cats.dreamt()]",
            concurrency_limit=None, **LAST, **PRIVATE,
        )  # fmt: skip
        shown = [page.load, model.change]
        gr.on(shown, self.actions.about, model, about, queue=False, **LAST, **PRIVATE)
