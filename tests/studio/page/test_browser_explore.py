"""The Explore tab in a real browser: a point that is dragged, keys, a dream, and leaving."""

from __future__ import annotations

import json
import re
import time

import pytest
from browsing import (  # noqa: F401 - fixtures
    IN_BROWSER,
    browser,
    generate,
    open_tab,
    sync_api,
    until,
    visits,
    wait_for_status,
)

pytestmark = IN_BROWSER
FINE = "#explore-view[data-state=fine]"
FACES = "[...document.querySelectorAll('.face img')].every((i) => i.src.startsWith('blob:'))"
DREAMS = "#explore-view[data-state=dream]"


@pytest.fixture
def asked():
    """What the page has asked ``/live`` for, in order."""
    return []


@pytest.fixture
def explore(visit, asked):
    """Opens the tab and waits until its cats are there."""

    def open_page(**size):
        page = visit(**size)
        watch(page, asked)
        return with_cats(page)

    return open_page


def with_cats(page):
    open_tab(page, "Explore")
    page.wait_for_selector(FINE)
    page.wait_for_function(FACES)
    return page


def watch(page, asked):
    def note(request):
        if request.url.endswith("/live"):
            asked.append(json.loads(request.post_data))

    page.on("request", note)


def drag(page, *places):
    """With the button down, over places of the pad from 0 to 1."""
    box = page.locator("#explore-map .pad").bounding_box()
    for i, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if i == 0:
            page.mouse.down()


def test_a_cat_follows_the_point_and_is_refined_when_it_rests(explore, asked):
    page = explore()
    asked.clear()
    before = page.locator("#explore-view .cat").get_attribute("src")
    drag(page, (0.5, 0.5), (0.25, 0.75))
    until(page, lambda: any(a["x"] == pytest.approx(0.25, abs=0.01) for a in asked))
    assert not any(a["fine"] for a in asked)
    page.mouse.up()
    page.wait_for_selector(FINE)
    assert page.locator("#explore-view .cat").get_attribute("src") != before
    last = asked[-1]
    assert last["fine"]
    assert (last["x"], last["y"]) == (pytest.approx(0.25, abs=0.01), pytest.approx(0.75, abs=0.01))
    assert page.locator("#explore-map .point").get_attribute("aria-valuetext") == (
        "25% to the right, 75% down"
    )


def test_of_the_places_that_were_passed_only_the_latest_is_drawn(explore, asked, page_gate):
    page = explore()
    asked.clear()
    with page_gate.close(seconds=30):
        drag(page, *((0.1 + i / 100, 0.3) for i in range(60)))
        until(page, lambda: page_gate.steps > 0)
        page.wait_for_timeout(300)
        assert len(asked) == 1  # the others wait in the browser, and it keeps the latest
    page.mouse.up()
    page.wait_for_selector(FINE)
    assert len(asked) <= 4
    assert asked[-1]["x"] == pytest.approx(0.69, abs=0.01)


def test_keys_move_the_point_and_stay_on_the_map(explore, asked):
    page = explore()
    point = page.get_by_role("slider", name="Point between the four cats")
    point.focus()
    asked.clear()
    point.press("ArrowRight")
    point.press("Shift+ArrowUp")
    sync_api.expect(point).to_have_attribute("aria-valuetext", "52% to the right, 40% down")
    until(page, lambda: asked and asked[-1].get("fine"))
    page.wait_for_selector(FINE)
    for _ in range(7):
        point.press("Shift+ArrowRight")
    sync_api.expect(point).to_have_attribute("aria-valuetext", "100% to the right, 40% down")


def test_the_point_goes_to_a_finger_on_a_phone(explore, asked):
    page = explore(width=390, height=844)
    pad = page.locator("#explore-map .pad")
    assert pad.evaluate("(e) => getComputedStyle(e).touchAction") == "none"
    for control in ("#dream", "#send-to-generate", ".dice-all", ".face >> nth=0", ".dice >> nth=0"):
        box = page.locator(control).bounding_box()
        assert min(box["width"], box["height"]) >= 44, control
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    asked.clear()
    drag(page, (0.5, 0.5), (1.2, 1.3))  # beyond the corner is the corner
    page.mouse.up()
    page.wait_for_selector(FINE)
    assert (asked[-1]["x"], asked[-1]["y"]) == (1, 1)


def test_a_corner_takes_another_cat_a_coat_the_cat_here_and_a_link(explore):
    page = explore()

    def corners():
        return page.evaluate("JSON.parse(localStorage['cat-diffusion.map']).corners")

    def changed(index, before):
        page.wait_for_function(
            "([i, seed]) => JSON.parse(localStorage['cat-diffusion.map']).corners[i].seed !== seed",
            arg=[index, before["seed"]],
        )

    before = corners()
    page.get_by_role("button", name="Top right: another cat by dice").click()
    changed(1, before[1])
    assert [a == b for a, b in zip(corners(), before, strict=True)] == [True, False, True, True]
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Bottom left cat: choose another").click()
    dialog.get_by_label("Coat").select_option("tabby")
    page.wait_for_function(
        "JSON.parse(localStorage['cat-diffusion.map']).corners[2].coat === 'tabby'"
    )
    dialog.get_by_role("button", name="Close").click()  # it waits for other coats
    page.get_by_role("button", name="Top left cat: choose another").click()
    dialog.get_by_label("Link to a cat").fill(f"{page.url}&seed=77&coat=black&model=tiny")
    dialog.get_by_role("button", name="Use").click()
    changed(0, before[0])
    assert (corners()[0]["seed"], corners()[0]["coat"]) == (77, "black")
    page.wait_for_selector(FINE)
    page.get_by_role("button", name="Bottom right cat: choose another").click()
    dialog.get_by_role("button", name="The cat shown large here").click()
    page.wait_for_function(
        "JSON.parse(localStorage['cat-diffusion.map']).corners[3].turned !== undefined"
    )


def test_the_cat_here_goes_to_generate_and_into_the_link(explore):
    page = explore()
    page.get_by_role("button", name="Send to Generate").click()
    wait_for_status(page, r"towards seed \d+.* towards seed \d+.* towards seed \d+.*\ss$")
    assert "turned=" in page.url
    open_tab(page, "Explore")
    page.get_by_role("button", name="Top left cat: choose another").click()
    page.get_by_role("dialog").get_by_role("button", name="The cat on Generate").click()
    page.wait_for_function(
        "JSON.parse(localStorage['cat-diffusion.map']).corners[0].turned !== undefined"
    )


@pytest.mark.slow
def test_the_cat_on_the_stage_becomes_a_corner_and_lies_under_the_point(visit, asked):
    page = visit()
    watch(page, asked)
    generate(page, 5)
    page.locator("#explore").click()
    page.wait_for_selector(FINE)
    page.wait_for_function(
        "JSON.parse(localStorage['cat-diffusion.map'] ?? '{}').corners?.[0].seed === 5"
    )
    fine = [a for a in asked if a.get("fine")][-1]
    assert (fine["x"], fine["y"], fine["corners"][0]["seed"]) == (0, 0, 5)


def test_a_dream_goes_on_until_it_is_stopped(explore, asked):
    page = explore()
    asked.clear()
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(DREAMS)
    until(page, lambda: len(asked) > 5)
    moments = [a["moment"] for a in asked]
    assert moments == sorted(moments)
    assert len({a["seed"] for a in asked}) == 1
    page.locator("#dream").click()
    page.wait_for_selector(FINE)
    assert asked[-1]["fine"]
    count = len(asked)
    page.wait_for_timeout(500)
    assert len(asked) == count
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(DREAMS)
    until(page, lambda: len(asked) > count + 5)
    page.locator("#save-dream").click()  # for which the dream ends, or both would be slow
    page.wait_for_selector("#dream-film-mp4")
    sync_api.expect(page.locator("#dream")).to_have_text("Dream")


@pytest.mark.slow
def test_a_dream_rests_while_nobody_sees_the_page(explore, asked):
    page = explore()
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(DREAMS)
    until(page, lambda: len(asked) > 5)
    show = """(hidden) => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(show, True)
    page.wait_for_timeout(300)
    count, last = len(asked), asked[-1]
    page.wait_for_timeout(2000)
    assert len(asked) == count
    page.evaluate(show, False)
    until(page, lambda: len(asked) > count + 3)
    assert asked[-1]["seed"] == last["seed"]
    assert last["moment"] <= asked[count]["moment"] < last["moment"] + 0.5  # two seconds are more
    sync_api.expect(page.locator("#dream")).to_have_text("Stop")


@pytest.mark.slow
def test_a_dream_goes_on_after_a_frame_that_failed(browser, page, asked):  # noqa: F811
    with visits(browser, page.url, told=503) as open_page:
        page = open_page()
        watch(page, asked)
        with_cats(page)
        page.get_by_role("button", name="Dream", exact=True).click()
        page.wait_for_selector(DREAMS)
        page.get_by_role("button", name="Full screen").click()
        page.wait_for_function("document.fullscreenElement")
        busy = {"error": "Too many visitors are waiting."}
        page.route("**/live", lambda route: route.fulfill(status=503, json=busy), times=1)
        said = page.locator(":fullscreen #explore-said")
        sync_api.expect(said).to_have_text(busy["error"])
        count = len(asked)
        until(page, lambda: len(asked) > count + 4)
        sync_api.expect(said).to_have_text("")
        sync_api.expect(page.locator("#dream")).to_have_text("Stop")


@pytest.mark.slow
def test_after_a_dream_the_cat_in_view_is_the_one_that_is_used(explore, asked):
    page = explore()
    asked.clear()
    page.get_by_role("button", name="Dream", exact=True).click()
    until(page, lambda: len(asked) > 3)
    open_tab(page, "Generate")  # which ends the dream; its cat stays
    open_tab(page, "Explore")
    alt = page.locator("#explore-view .cat").get_attribute("alt")
    seed = int(re.fullmatch(r"A cat of the dream: seed (\d+)", alt).group(1))
    page.get_by_role("button", name="Bottom right cat: choose another").click()
    page.get_by_role("dialog").get_by_role("button", name="The cat shown large here").click()
    page.wait_for_function(
        "(seed) => JSON.parse(localStorage['cat-diffusion.map']).corners[3].seed === seed", arg=seed
    )


@pytest.mark.slow
def test_a_link_that_is_refused_leaves_the_corner_as_it_was(browser, page):  # noqa: F811
    server = page.url
    with visits(browser, server, told=422) as open_page:
        page = with_cats(open_page())
        before = page.evaluate("JSON.parse(localStorage['cat-diffusion.map']).corners")
        page.get_by_role("button", name="Top left cat: choose another").click()
        page.get_by_role("dialog").get_by_label("Link to a cat").fill(f"{page.url}&seed=no")
        page.get_by_role("dialog").get_by_role("button", name="Use").click()
        said = page.locator("#explore-said")
        sync_api.expect(said).not_to_be_empty()
        page.wait_for_function(FACES)
        page.wait_for_selector(FINE)
        sync_api.expect(said).not_to_be_empty()  # it can still be read
        assert page.evaluate("JSON.parse(localStorage['cat-diffusion.map']).corners") == before


@pytest.mark.slow
def test_a_link_that_waits_for_its_cat_survives_another_tab(explore):
    page = explore()
    before = page.evaluate("JSON.parse(localStorage['cat-diffusion.map']).corners")
    page.route("**/live", lambda route: None)  # a server that takes its time
    page.get_by_role("button", name="Top right cat: choose another").click()
    link = f"{page.url}&seed=77&coat=black&model=tiny"
    page.get_by_role("dialog").get_by_label("Link to a cat").fill(link)
    page.get_by_role("dialog").get_by_role("button", name="Use").click()
    open_tab(page, "Generate")
    page.unroute("**/live")
    open_tab(page, "Explore")
    page.wait_for_function("JSON.parse(localStorage['cat-diffusion.map']).corners[1].seed === 77")
    after = page.evaluate("JSON.parse(localStorage['cat-diffusion.map']).corners")
    assert [a == b for a, b in zip(after, before, strict=True)] == [True, False, True, True]
    page.wait_for_selector(FINE)


@pytest.mark.parametrize("way", ["another tab", "closing"])
def test_leaving_ends_the_dream_within_a_frame(explore, asked, page_gate, way):
    page = explore()
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(DREAMS)
    page_gate.count()
    until(page, lambda: len(page_gate.batches) > 2)
    if way == "closing":
        page.close()
    else:
        open_tab(page, "Generate")
    page_gate.count()
    time.sleep(1.0)
    assert len(page_gate.batches) <= 2


@pytest.mark.slow
def test_one_who_wants_little_motion_sees_cat_after_cat(explore, asked):
    page = explore()
    page.emulate_media(reduced_motion="reduce")
    asked.clear()
    page.get_by_role("button", name="Dream", exact=True).click()
    until(page, lambda: len(asked) >= 2)
    assert [a["moment"] for a in asked[:2]] == [0, 1]
