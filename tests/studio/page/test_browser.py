"""The page in a real browser: what a visitor does, seen as the visitor sees it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import numpy as np
from browsing import (  # noqa: F401 - fixtures
    DRAWN,
    IN_BROWSER,
    browser,
    choose,
    decode,
    generate,
    held_back,
    in_both_schemes,
    open_tab,
    pick,
    pixels,
    status,
    sync_api,
    until,
    wait_for_status,
)
from studio_fixtures import LABELS, TINY, save_tiny, wait_until

from studio.page.examples import FIRST_SEED

pytestmark = IN_BROWSER


def test_a_seed_that_was_typed_or_thrown_is_the_one_that_is_drawn(visit):
    page = visit()
    fresh = page.locator("#fresh input")
    sync_api.expect(fresh).to_be_checked()
    page.locator("#seed input").fill("42")
    sync_api.expect(fresh).not_to_be_checked()
    page.locator("#generate").click()
    wait_for_status(page, r"^seed 42 .*\ss$")
    fresh.check()
    page.locator("#dice").click()
    sync_api.expect(fresh).not_to_be_checked()
    sync_api.expect(page.locator("#seed input")).not_to_have_value("42")
    seed = page.locator("#seed input").input_value()
    page.locator("#generate").click()
    wait_for_status(page, rf"^seed {seed} .*\ss$")


def test_the_first_sight_is_a_cat_and_a_button(visit):
    page = visit()
    assert pixels(page).std() > 0
    sync_api.expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible()
    assert page.locator("#strip img").count() == 8
    box = page.locator(".stage img.cat").bounding_box()
    assert box["width"] >= 256


def test_generate_draws_another_cat_with_each_click(visit):
    page = visit()
    seen, seed = [], FIRST_SEED
    for _ in range(2):
        page.get_by_role("button", name="Generate", exact=True).click()
        wait_for_status(page, rf"^seed (?!{seed} ).*\ss$")
        seed = int(status(page).split()[1])
        seen.append(pixels(page).tobytes())
    assert seen[0] != seen[1]


def test_the_same_seed_gives_the_same_pixels_on_every_visit(visit):
    first, second = visit(), visit()
    generate(first, 123)
    generate(second, 456)
    generate(second, 123)
    np.testing.assert_array_equal(pixels(first), pixels(second))


def test_the_picture_forms_before_the_eyes_and_stop_keeps_what_is_there(visit, page_gate):
    page = visit()
    generate(page, 4)
    sync_api.expect(page.locator(".corner .star")).to_be_visible()
    page.get_by_text("Advanced").click()
    choose(page, "sampler", "ddpm")
    sync_api.expect(page.locator("#steps input[type=number]")).to_have_value("1000")
    with page_gate.close(seconds=0.1):  # else it is done before a busy browser looks
        page.locator("#seed input").fill("5")
        page.locator("#seed input").press("Enter")
        wait_for_status(page, r"Step \d+ of 1000")
        for what in (".corner .star", "[data-do=play]:enabled"):  # whose would they be?
            sync_api.expect(page.locator(what)).to_be_hidden()
        early = pixels(page)
        page.wait_for_function(
            "(before) => document.querySelector('.stage img.cat').src !== before",
            arg=page.locator(".stage img.cat").first.get_attribute("src"),
        )
        assert (early != pixels(page)).any()
        page.get_by_role("button", name="Stop", exact=True).click()
        wait_for_status(page, "stopped after")
    assert pixels(page).std() > 0
    choose(page, "sampler", "dpmpp_2m")
    sync_api.expect(page.locator("#steps input[type=number]")).to_have_value("12")
    generate(page, 6)


def test_the_slider_walks_the_steps_back_and_forth(visit):
    page = visit()
    generate(page, 31)
    final = pixels(page)
    walk = page.locator("#walk input[type=range]")
    walk.focus()
    for _ in range(8):
        walk.press("ArrowLeft")
    page.wait_for_function("document.querySelector('#walk input[type=range]').value == 4")
    page.wait_for_timeout(200)
    assert (pixels(page) != final).any()
    for _ in range(8):
        walk.press("ArrowRight")
    page.wait_for_timeout(200)
    np.testing.assert_array_equal(pixels(page), final)


def test_a_link_brings_the_same_cat(visit):
    page = visit()
    page.get_by_label("New seed for each click").uncheck()
    pick(page, "coat", "black")
    generate(page, 42)
    page.get_by_role("button", name="Share").click()
    page.wait_for_function("window.catLinkCopied")
    sync_api.expect(page.locator("#said")).to_have_text("Copied")
    link = urlsplit(page.evaluate("window.catLinkCopied"))
    other = visit(f"/?{link.query}")
    wait_for_status(other, r"^seed 42 · black .*\ss$")
    np.testing.assert_array_equal(pixels(other), pixels(page))
    sync_api.expect(other.locator("#coat input:checked")).to_have_value("black")


def test_a_link_with_impossible_settings_is_told_and_the_page_works(visit):
    page = visit("/?seed=abc&steps=99999")
    generate(page, 3)


def test_a_model_that_appears_is_offered_and_its_coat_chosen(visit, page):
    file = page.studio.library.places[0] / "tinymia.safetensors"
    opened = visit()
    opened.get_by_text("Advanced").click()
    save_tiny(file, seed=3, labels=(*LABELS, "Mia"))
    try:
        choose(opened, "model", "tinymia")
        sync_api.expect(opened.locator("#coat input:checked")).to_have_value("Mia")
        generate(opened, 4)
        assert re.search(r"Mia .* tinymia", status(opened))
        open_tab(opened, "Morph")
        choose(opened, "morph-coats", "Mia")
    finally:
        file.unlink()


def test_a_download_has_the_size_that_was_chosen(visit):
    page = visit()
    generate(page, 12)
    page.get_by_text("Downloads").click()
    page.get_by_label("Show sharp pixels").check()
    for scale in (1, 4):
        pick(page, "scale", scale)
        with page.expect_download() as download:
            page.locator("#download").click()
        large = decode(download.value.path().read_bytes())
        assert len(large) == TINY.image_size * scale
        np.testing.assert_array_equal(large[::scale, ::scale], pixels(page))


def test_enter_generates_from_any_number(visit):
    page = visit()
    page.get_by_text("Advanced").click()
    field = page.locator("#steps input[type=number]")
    field.wait_for()
    page.wait_for_timeout(500)  # Gradio sets a field once more just after its accordion opens
    field.fill("2")
    field.press("Enter")
    wait_for_status(page, r"^seed .* 2 steps .*\ss$")


def test_everything_has_a_name(visit):
    """Each control has a label, each picture a text: for those who hear the page."""
    page = visit()
    page.get_by_text("Advanced").click()
    for tab in ("Animate", "Morph", "Variations", "From a picture", "Repaint", "Restore"):
        open_tab(page, tab)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, button, select, img')]
                .filter(e => e.checkVisibility() && !(e.ariaLabel || e.title || e.alt
                    || e.innerText?.trim() || e.labels?.length || e.closest('button, label')))
                .map(e => e.outerHTML.slice(0, 200))"""
        )
        assert nameless == []


def four_cats(page):
    """On the stage, from seed 60."""
    pick(page, "count", 4)
    page.locator("#seed input").fill("60")
    page.locator("#seed input").press("Enter")
    wait_for_status(page, r"^4 cats from seed 60 .*\ss$")
    return page


def test_a_cat_is_picked_out_of_many(visit):
    page = four_cats(visit())
    third = pixels(page, 2)
    page.get_by_role("button", name="Generated cat: seed 62").click()
    wait_for_status(page, "^seed 62 ")
    sync_api.expect(page.locator(".stage img.cat:visible")).to_have_count(1)
    np.testing.assert_array_equal(pixels(page, 2), third)
    sync_api.expect(page.locator("#seed input")).to_have_value("62")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "cat-62.png"
    current = page.locator("#strip [aria-current] img")
    sync_api.expect(current).to_have_attribute("alt", re.compile("seed 62 "))
    page.keyboard.press("ArrowRight")
    wait_for_status(page, "^seed 63 ")
    sync_api.expect(current).to_have_attribute("alt", re.compile("seed 63 "))
    sync_api.expect(page.get_by_role("button", name="The next cat")).to_be_disabled()
    page.keyboard.press("Escape")
    wait_for_status(page, "^4 cats from seed 60 ")
    sync_api.expect(page.locator(".stage img.cat:visible")).to_have_count(4)


def test_of_quick_steps_through_a_grid_the_last_counts(visit):
    """Gradio drops an event that comes before the answer to the one before it."""
    page = four_cats(visit())
    with held_back(page, "**/gradio_api/run/**") as held:
        page.get_by_role("button", name="Generated cat: seed 60").click()
        until(page, lambda: held)
        for _ in range(3):
            page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator("#seed input")).to_have_value("63")
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "cat-63.png"


def test_a_second_click_draws_the_second_cat(visit, page, page_gate):
    visitor = visit()
    with page_gate.close() as gate:
        for seed in ("70", "71"):
            visitor.locator("#seed input").fill(seed)
            visitor.locator("#generate").click()
            wait_for_status(visitor, "^(Step|Waiting)")
        wait_until(lambda: [job.recipes[0].seed for job in page.studio._jobs] == [71])
        gate.event.set()
        wait_for_status(visitor, r"^seed 71 .*\ss$")
        visitor.wait_for_selector(DRAWN)
    assert "seed 71 " in visitor.locator("img.cat").get_attribute("alt")


def test_a_mistake_is_a_sentence_and_the_form_keeps_its_values(visit):
    page = visit()
    page.locator("#seed input").fill("-1")
    page.locator("#seed input").press("Enter")
    sync_api.expect(page.locator("#status [role=alert]")).to_contain_text("whole number")
    sync_api.expect(page.locator("#seed input")).to_have_value("-1")
    generate(page, 9)


def test_nothing_overflows_a_phone(visit):
    page = visit(width=390, height=844)
    for _ in in_both_schemes(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    stage = page.locator(".stage").bounding_box()
    button = page.locator("#generate").bounding_box()
    assert stage["y"] + stage["height"] <= button["y"]
    assert page.locator("img.cat").first.get_attribute("alt")


def test_where_the_first_call_is_refused_a_sentence_says_why(browser, page):  # noqa: F811
    """As behind a proxy that hides for which host it was asked."""

    def through_proxy(route):
        if route.request.method == "POST":
            headers = {**route.request.headers, "origin": "https://cats.example"}
            route.fulfill(response=route.fetch(headers=headers))
        else:
            route.continue_()

    context = browser.new_context()
    visit = context.new_page()
    visit.route("**/gradio_api/**", through_proxy)
    visit.goto(page.url)
    sync_api.expect(visit.locator("#refused")).to_contain_text("has to pass the Host header on")
    context.close()


def test_nothing_lies_over_the_tabs(visit):
    page = visit()
    covered = """() => [...document.querySelectorAll('#tabs > .tab-wrapper [role=tab]')]
      .filter((tab) => tab.checkVisibility())
      .filter((tab) => {
        const box = tab.getBoundingClientRect();
        return [0.1, 0.5, 0.9].some((share) => {
          const top = document.elementFromPoint(
            box.x + share * box.width, box.y + box.height / 2);
          return !tab.contains(top);
        });
      })
      .map((tab) => tab.textContent)"""
    for width in (641, 900, 960, 1024, 1280):
        page.set_viewport_size({"width": width, "height": 1000})
        assert page.evaluate(covered) == [], width
        page.get_by_role("tab", name="Explore").click(trial=True)
