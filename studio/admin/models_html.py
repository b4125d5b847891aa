"""How the owner's models look: cards, and the cats of one that is ready."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from ..training.tuned import MAX_MODEL_NAME, ModelCard
from .cats import CATS, SIDE, link_to
from .html import message_html


def models_html(
    cards: Sequence[ModelCard], default: str, faults: Mapping[str, str] | None = None
) -> str:
    """The owner's models as cards; and what is wrong with damaged ones."""
    damaged = "".join(
        message_html(f"{name} is left out: {fault}", error=True)
        for name, fault in (faults or {}).items()
    )
    if not cards:
        return damaged + '<p class="admin-counts">You have no models of your own yet.</p>'
    items = "".join(_card_html(card, card.name == default) for card in cards)
    return f'{damaged}<ul class="admin-cards">{items}</ul>'


def _card_html(card: ModelCard, is_default: bool) -> str:
    name, title = escape(card.name), escape(card.title)
    unseen = f'<span class="admin-unseen"> {title}</span>'
    compare = (
        f'<button type="button" class="admin-button" data-admin="compare" data-title="{title}"'
        f' data-base="{escape(card.base)}" data-before="{_row(card, "before")}"'
        f' data-after="{_row(card, "cats")}">Compare{unseen}</button>'
    )
    default = (
        '<span class="admin-badge">The page’s cat</span><button type="button" class="admin-button"'
        f' data-act="usual" data-of="{name}">Show the usual cats first</button>' if is_default
        else f'<button type="button" class="admin-button" data-act="default" data-of="{name}">'
             f"Make default{unseen}</button>"
    )  # fmt: skip
    return (
        f'<li class="admin-card"><a href="{escape(link_to(card))}" title="Draw {title}">'
        f"{_cat_html(card, 0, f'A cat by {title}')}</a>"
        f'<form data-act="rename" data-of="{name}"><input value="{title}" name="title"'
        f' maxlength="{MAX_MODEL_NAME}" required autocomplete="off" aria-label="Name of the model">'
        f'<button class="admin-button" aria-label="Rename {title}">Rename</button></form>'
        f'<p class="admin-counts">{_made_of(card)}</p>'
        f'<div class="admin-row">{default}{compare * bool(card.base)}'
        f'<a class="admin-button" href="admin/models/{quote(card.name)}.safetensors" download'
        f' aria-label="Download {title}">Download</a>'
        f'<button type="button" class="admin-button admin-confirm" data-act="delete"'
        f' data-of="{name}" data-title="{title}">Delete</button></div></li>'
    )


def _made_of(card: ModelCard) -> str:
    parts = [f"{card.photos:,} photos"] * bool(card.photos)
    parts += [f"from {escape(card.base)}"] * bool(card.base)
    parts.append(time.strftime("%d %B %Y", time.localtime(card.made)).lstrip("0"))
    return " · ".join(parts)


def _row(card: ModelCard, kind: str) -> str:
    """Where a model's cats are, all in a row, or those from before; changes with the weights."""
    return f"admin/models/{quote(card.name)}/{kind}.jpg?v={card.hash}"


def _cat_html(card: ModelCard, number: int, text: str) -> str:
    """One of the cats of a row."""
    return (
        f'<img class="admin-cat" src="{_row(card, "cats")}" width="{SIDE}" height="{SIDE}"'
        f' loading="lazy" alt="{text}" style="--of: {number / (CATS - 1):.4f}">'
    )


def ready_html(card: ModelCard, *, is_default: bool, training: str, can_go_on: bool) -> str:
    """That a model is ready: its cats, and what one does with it now."""
    title = escape(card.title)
    cats = "".join(
        f'<a href="{escape(link_to(card, number))}">'
        f"{_cat_html(card, number, f'{title}, cat {number + 1} of {CATS}')}</a>"
        for number in range(CATS)
    )
    default = (
        f'<span class="admin-badge">{title} is the page’s cat</span>' if is_default
        else f'<button type="button" class="admin-button" data-act="default"'
             f' data-of="{escape(card.name)}">Make {title} the page’s cat</button>'
    )  # fmt: skip
    longer = (
        f'<button type="button" class="admin-button" data-act="longer" data-of="{training}">'
        "Teach longer</button>"
    )
    return (
        f'<section class="admin-ready"><h3>{title} is ready</h3>'
        f'<div class="admin-cats">{cats}</div>'
        f'<div class="admin-row"><a class="admin-button primary" href="{escape(link_to(card))}">'
        f"Draw {title}</a>{default}{longer * can_go_on}</div></section>"
    )
