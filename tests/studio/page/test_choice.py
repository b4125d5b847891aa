"""The list of choices."""

from __future__ import annotations

from studio.page.choice import Chips, Choice


def test_a_choice_outlives_gradios_memory_of_a_visit():
    """With it goes what a model list or a link had put into the list of choices."""
    one, many = (Choice(["any"], render=False, multiselect=multi) for multi in (False, True))
    assert one.preprocess("tabby") == "tabby"
    assert many.preprocess(["tabby", "white"]) == ["tabby", "white"]
    assert [one.preprocess(odd) for odd in (None, 7, ["any"], {"a": 1})] == [""] * 4
    assert [many.preprocess(odd) for odd in (None, "any", {"a": 1})] == [[]] * 3
    assert one.get_block_name() == "dropdown"


def test_chips_take_what_the_page_shows_and_leave_the_check_to_the_handler():
    chips = Chips(["a"])
    assert [chips.preprocess(value) for value in ("a", "new", 4, None, {}, [])] == [
        "a", "new", 4, None, None, None,
    ]  # fmt: skip
