"""From events of the page to actions that know no component: both speak by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from gradio.components import Component

# How events reach the server.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # no endpoint
LAST: dict[str, Any] = {"trigger_mode": "always_last"}  # by itself Gradio drops what comes early


def start(
    event: Callable[..., Any], action: Callable[..., Any], inputs: Sequence[Component] | None,
    outputs: Mapping[str, Component], **how: Any,
) -> Any:  # fmt: skip
    """Have an event start an action, which answers by the names of ``outputs``."""
    return event(_by_name(action, outputs), inputs, list(outputs.values()), **how)


def _by_name(action: Callable[..., Any], components: Mapping[str, Component]) -> Callable:
    """An action that answers by component, as Gradio wants it, made of one that does by name."""

    def named(shown: Mapping[str, Any]) -> dict[Component, Any]:
        return {components[name]: value for name, value in shown.items()}

    @functools.wraps(action)
    def once(*values: Any) -> dict[Component, Any]:
        return named(action(*values))

    @functools.wraps(action)
    def stream(*values: Any) -> Iterator[dict[Component, Any]]:
        with closing(action(*values)) as answers:
            for shown in answers:
                yield named(shown)

    return stream if inspect.isgeneratorfunction(action) else once
