"""The visit persists, and the page answers keys, swipes and clicks: in a real browser."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browsing import (  # noqa: F401 - fixtures
    DRAWN,
    IN_BROWSER,
    browser,
    generate,
    open_tab,
    pick,
    pixels,
    status,
    sync_api,
    wait_for_status,
)

pytestmark = [*IN_BROWSER, pytest.mark.slow]


def mine(page):
    return page.locator("#mine .thumb")


def reload(page):
    page.reload()
    page.wait_for_selector(DRAWN)


def test_the_strip_is_there_after_a_reload_with_stars_and_without_what_was_deleted(visit):
    page = visit()
    assert mine(page).count() == 0
    for seed in (201, 202, 203):
        generate(page, seed)
        sync_api.expect(mine(page)).to_have_count(seed - 200)
    page.get_by_role("button", name="Keep this cat with a star").click()
    mine(page).nth(1).click()
    wait_for_status(page, r"^seed 202 .*\ss$")
    page.get_by_role("button", name="Delete this cat").click()
    sync_api.expect(mine(page)).to_have_count(2)
    mine(page).first.click()
    wait_for_status(page, r"^seed 203 .*\ss$")
    star = page.get_by_role("button", name="Keep this cat with a star")
    star.click()  # takes it away
    page.get_by_role("button", name="Undo").click()
    sync_api.expect(mine(page)).to_have_count(3)
    sync_api.expect(star).to_have_attribute("aria-pressed", "false")  # as it is now
    star.click()
    mine(page).nth(1).click()
    wait_for_status(page, r"^seed 202 .*\ss$")
    page.get_by_role("button", name="Delete this cat").click()
    reload(page)  # whose address still has that cat, so it is drawn, and is there again
    wait_for_status(page, r"^seed 202 .*\ss$")
    sync_api.expect(mine(page)).to_have_count(3)
    assert page.locator("#examples .thumb").count() == 8
    page.get_by_role("button", name="Clear").click()
    sync_api.expect(mine(page)).to_have_count(1)
    sync_api.expect(mine(page).locator("img")).to_have_attribute("alt", re.compile("seed 203 "))


def test_star_is_for_the_cat_that_is_seen(visit):
    """Not for one that was asked for and has not come."""
    page = visit()
    for seed in (211, 212):
        generate(page, seed)
        sync_api.expect(mine(page)).to_have_count(seed - 210)
    page.route("**/gradio_api/queue/join*", lambda route: None)  # the answer never comes
    mine(page).nth(1).click()
    sync_api.expect(mine(page).nth(1)).to_have_attribute("aria-current", "true")
    page.get_by_role("button", name="Keep this cat with a star").click()
    sync_api.expect(mine(page).nth(0)).to_have_class(re.compile("starred"))
    sync_api.expect(mine(page).nth(1)).not_to_have_class(re.compile("starred"))


def test_where_nothing_may_be_kept_cats_stay_as_long_as_the_page_is_open(visit):
    page = visit()
    page.add_init_script(
        """for (const name of ['getItem', 'setItem']) {
            Storage.prototype[name] = () => { throw new DOMException('no', 'SecurityError'); };
        }"""
    )
    reload(page)
    for count, seed in enumerate((205, 206), start=1):
        generate(page, seed)
        sync_api.expect(mine(page)).to_have_count(count)
    page.get_by_role("button", name="Delete this cat").click()
    sync_api.expect(mine(page)).to_have_count(1)


def test_a_cat_that_the_server_forgot_comes_back_from_the_browsers_memory(visit):
    page = visit()
    generate(page, 211)
    cat = pixels(page)
    page.goto(page.url.split("?")[0])
    page.wait_for_selector(DRAWN)
    mine(page).first.click()
    wait_for_status(page, r"^seed 211 .*\ss$")
    np.testing.assert_array_equal(pixels(page), cat)
    sync_api.expect(mine(page).first).to_have_attribute("aria-current", "true")


def test_examples_never_become_ones_own(visit):
    page = visit()
    page.locator("#examples .thumb").nth(3).click()
    wait_for_status(page, r"^seed 28 .*\ss$")
    sync_api.expect(page.locator("#examples .thumb").nth(3)).to_have_attribute(
        "aria-current", "true"
    )
    assert mine(page).count() == 0
    assert urlsplit(page.url).query == ""


def test_the_address_follows_the_stage_and_brings_it_back(visit):
    page = visit()
    pick(page, "count", 4)
    generate_many(page, 220)
    query = parse_qs(urlsplit(page.url).query)
    assert (query["seed"], query["count"]) == (["220"], ["4"])
    reload(page)
    wait_for_status(page, r"^4 cats from seed 220 .*\ss$")
    assert page.locator(".stage img.cat").count() == 4


def generate_many(page, seed):
    page.locator("#seed input").fill(str(seed))
    page.locator("#seed input").press("Enter")
    wait_for_status(page, rf"cats from seed {seed} .*\ss$")


def test_settings_are_remembered_until_they_are_reset(visit):
    page = visit()
    pick(page, "coat", "tabby")
    pick(page, "count", 9)
    page.wait_for_function("cats.settings().includes('tabby') && cats.settings().includes('9')")
    reload(page)
    sync_api.expect(page.locator("#coat input:checked")).to_have_value("tabby")
    sync_api.expect(page.locator("#count input:checked")).to_have_value("9")
    page.get_by_role("button", name="Reset settings").click()
    sync_api.expect(page.locator("#coat input:checked")).to_have_value("any")
    reload(page)
    sync_api.expect(page.locator("#count input:checked")).to_have_value("1")


def test_keys_draw_and_go_along_the_strip(visit):
    page = visit()
    generate(page, 230)
    generate(page, 231)
    page.locator("#seed input").blur()
    page.keyboard.press("ArrowRight")  # the older one
    wait_for_status(page, r"^seed 230 .*\ss$")
    page.keyboard.press("z")
    wait_for_status(page, r"^seed 231 .*\ss$")
    page.keyboard.press("v")
    wait_for_status(page, r"^9 cats from seed 231 .*\ss$")
    page.keyboard.press("?")
    sync_api.expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#keys")).to_be_hidden()


def test_going_back_where_nothing_was_before_forgets_nothing(visit):
    page = visit()
    first = page.locator("img.cat").get_attribute("alt")
    page.keyboard.press("z")
    generate(page, 232)
    page.locator("#seed input").blur()
    page.keyboard.press("z")
    sync_api.expect(page.locator("img.cat")).to_have_attribute("alt", first)


def test_a_key_that_is_written_starts_nothing(visit):
    page = visit()
    open_tab(page, "Morph")
    before = status(page)
    page.locator("#morph-seeds textarea, #morph-seeds input").fill("")
    page.locator("#morph-seeds textarea, #morph-seeds input").press_sequentially("gvz")
    page.wait_for_timeout(500)
    assert status(page) == before


def test_the_forming_is_replayed_and_a_click_ends_it(visit):
    page = visit()
    page.evaluate("""() => {
      window.replays = [];
      performance.now = () => 0;  // however slow this machine is
      new MutationObserver((all) => all.forEach(({addedNodes, removedNodes}) => {
        addedNodes.forEach((node) => node.className === 'replay' && replays.push('begins'));
        removedNodes.forEach((node) => node.className === 'replay' && replays.push('ends'));
      })).observe(document.body, {subtree: true, childList: true});
    }""")
    generate(page, 240)
    page.wait_for_function("replays.length === 2")
    mine(page).first.click()  # it was seen to form
    wait_for_status(page, r"^seed 240 .*\ss$")
    page.wait_for_timeout(300)
    assert page.evaluate("replays") == ["begins", "ends"]


def test_the_walk_plays_and_says_which_step_is_shown(visit):
    page = visit()
    generate(page, 250)
    final = page.locator("img.cat").get_attribute("alt")
    slider = page.locator("#walk input")
    slider.focus()
    slider.press("Home")
    sync_api.expect(page.locator("#walk .caption")).to_have_text("Step 1 of 12")
    assert "Step 1 of 12" in page.locator("img.cat").get_attribute("alt")
    page.get_by_role("button", name="Play how this cat formed").click()
    sync_api.expect(page.locator("#walk .caption")).to_have_text("")
    sync_api.expect(slider).to_have_value("12")
    assert page.locator("img.cat").get_attribute("alt") == final


def test_a_cat_that_is_left_half_way_through_its_walk_is_whole_in_its_grid(visit):
    page = visit()
    pick(page, "count", 4)
    generate_many(page, 270)
    first = page.locator(".stage img.cat").first
    whole = first.get_attribute("src")
    page.get_by_role("button", name="Generated cat: seed 270").click()
    wait_for_status(page, "^seed 270 ")
    page.locator("#walk input").press("Home")
    assert first.get_attribute("src") != whole
    page.get_by_role("button", name="back to 4").click()
    assert first.get_attribute("src") == whole


def test_stop_is_there_only_while_there_is_something_to_stop(visit, page_gate):
    page = visit()
    sync_api.expect(page.locator("#stop")).to_be_hidden()
    with page_gate.close() as gate:
        page.locator("#generate").click()
        sync_api.expect(page.locator("#stop")).to_be_visible()
        page.locator("#stop").click()
        gate.event.set()
        wait_for_status(page, "(s|step.)$")
    sync_api.expect(page.locator("#stop")).to_be_hidden()


def test_a_click_is_answered_before_the_server_has_heard_of_it(visit):
    page = visit()
    page.route("**/gradio_api/queue/join**", lambda route: None)  # it never arrives
    page.locator("#generate").click()
    sync_api.expect(page.locator("#ack")).to_have_text("Asking for a cat", timeout=1000)


def test_a_seed_is_a_whole_number_in_the_box_too(visit):
    page = visit()
    page.locator("#seed input").fill("1.7")
    page.locator("#seed input").press("Enter")
    wait_for_status(page, r"^seed 2 .*\ss$")
    sync_api.expect(page.locator("#seed input")).to_have_value("2")


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_all_that_matters_is_on_the_first_screen(visit, width, height):
    page = visit(width=width, height=height)
    generate_by_click(page)
    for what in (".stage img.cat", "#save", "#generate", "#mine .thumb"):
        box = page.locator(what).first.bounding_box()
        assert box["y"] >= 0, what
        assert box["y"] + box["height"] <= height, what
    cat = page.locator(".stage img.cat").bounding_box()
    assert cat["width"] >= min(width, 440) - 2
    for button in page.locator("button:not([aria-hidden] *):visible").all():
        box = button.bounding_box()
        if width == 390 and box["y"] < height and button.evaluate("e => !e.closest('#play')"):
            assert box["height"] >= 43.5, button.evaluate("e => e.outerHTML")


def generate_by_click(page):
    page.locator("#generate").click()
    wait_for_status(page, r"^seed (?!25 ).*\ss$")
    sync_api.expect(mine(page)).to_have_count(1)


def test_a_phone_has_sheets_and_a_swipe(visit):
    page = visit(width=390, height=844)
    sync_api.expect(page.locator("#settings")).to_be_hidden()
    page.get_by_role("button", name="Coat and settings").click()
    pick(page, "coat", "black")
    page.mouse.click(20, 60)  # outside of the sheet
    sync_api.expect(page.locator("#settings")).to_be_hidden()
    sync_api.expect(page.locator(".bar-coat")).to_have_text("black")
    generate_by_click(page)
    first = status(page)
    page.locator("#generate").click()
    sync_api.expect(mine(page)).to_have_count(2)
    page.evaluate("""() => {
      const stage = document.querySelector('#stage .stage');
      const at = (x) => new Touch({identifier: 1, target: stage, clientX: x, clientY: 200});
      stage.dispatchEvent(new TouchEvent('touchstart', {bubbles: true, touches: [at(300)]}));
      stage.dispatchEvent(new TouchEvent('touchend', {bubbles: true, changedTouches: [at(100)]}));
    }""")
    wait_for_status(page, "^" + re.escape(first.split(" · ")[0]) + r" .*\ss$")


def test_each_sheet_of_a_phone_has_a_button_to_close_it(visit):
    page = visit(width=390, height=844, touch=True)
    for opens, sheet in ((".bar-coat", "#settings"), ("#more", "#play"), ("#more", "#play")):
        page.locator(opens).tap()
        close = page.locator(sheet).get_by_role("button", name="Close", exact=True)
        sync_api.expect(close).to_be_in_viewport(ratio=1)
        close.tap()
        sync_api.expect(page.locator(sheet)).to_be_hidden()


def test_a_tap_that_closes_a_sheet_presses_nothing_under_it(visit):
    page = visit(width=390, height=844, touch=True)
    page.locator("#more").tap()
    tool = page.get_by_role("tab", name="From a picture", exact=True)
    sync_api.expect(tool).to_have_attribute("aria-selected", "true")
    explore = page.get_by_role("tab", name="Explore", exact=True)
    box = explore.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sync_api.expect(page.locator("#play")).to_be_hidden()
    sync_api.expect(explore).to_have_attribute("aria-selected", "false")


def test_an_arrow_opens_a_cat_of_the_grid(visit):
    page = visit()
    pick(page, "count", 4)
    page.locator("#generate").click()
    wait_for_status(page, r"^4 cats from .*\ss$")
    cats = page.locator(".stage img.cat:visible")
    for key, opened in (("ArrowRight", 0), ("ArrowLeft", 3)):
        page.locator("body").press(key)
        sync_api.expect(cats).to_have_count(1)
        sync_api.expect(page.locator(".stage > button").nth(opened)).to_be_visible()
        page.locator("body").press("Escape")
        sync_api.expect(cats).to_have_count(4)


def test_a_locked_seed_is_remembered(visit):
    page = visit()
    page.locator("#seed input").fill("42")
    page.wait_for_function("cats.settings().includes('42')")
    reload(page)
    sync_api.expect(page.locator("#seed input")).to_have_value("42")
    sync_api.expect(page.locator("#fresh input")).not_to_be_checked()
    page.get_by_role("button", name="Reset settings").click()
    sync_api.expect(page.locator("#fresh input")).to_be_checked()


def test_a_cat_that_is_open_over_its_grid_is_so_after_a_reload(visit):
    page = visit()
    pick(page, "count", 4)
    generate_many(page, 260)
    page.get_by_role("button", name="Generated cat: seed 262").click()
    wait_for_status(page, "^seed 262 ")
    page.reload()
    wait_for_status(page, "^seed 262 ")
    sync_api.expect(page.locator(".stage img.cat:visible")).to_have_count(1)
    page.keyboard.press("?")
    page.keyboard.press("Escape")  # closes the keys, not the cat
    sync_api.expect(page.locator("#keys")).to_be_hidden()
    sync_api.expect(page.locator(".stage img.cat:visible")).to_have_count(1)
    page.keyboard.press("Escape")
    wait_for_status(page, "^4 cats from seed 260 ")
    assert "open" not in parse_qs(urlsplit(page.url).query)
