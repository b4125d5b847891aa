"""The page in a real browser: what a visitor does, seen as the visitor sees it."""

from __future__ import annotations

import re
import zipfile
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import (  # noqa: F401 - fixtures
    CHROMIUM,
    DRAWN,
    PATIENCE,
    browser,
    choose,
    decode,
    generate,
    open_tab,
    pixels,
    status,
    sync_api,
    wait_for_status,
)
from PIL import Image, ImageSequence
from studio_fixtures import LABELS, TINY, Gate, save_tiny, wait_until

from diffusion.images import fit_square
from studio.page.examples import FIRST_SEED

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture
def visit(browser, page):  # noqa: F811
    """Opens the page; afterwards no request has left this machine and nothing has gone wrong."""
    address = page.url
    contexts, troubles, hosts = [], [], set()

    def open_page(path="/", *, width=1440, height=1000, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("response", lambda r: troubles.append(r.url) if r.status >= 400 else None)
        page.on("request", lambda r: hosts.add(urlsplit(r.url).hostname))
        page.goto(address + path)
        page.wait_for_selector(DRAWN)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles
    assert hosts - {None, ""} == {urlsplit(address).hostname}


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


def test_the_picture_forms_before_the_eyes_and_stop_keeps_what_is_there(visit, page):
    studio, page = page.studio, visit()
    page.get_by_text("Advanced").click()
    choose(page, "sampler", "ddpm")
    sync_api.expect(page.locator("#steps input[type=number]")).to_have_value("1000")
    with Gate(studio, open=False, seconds=0.1):  # else it is done before a busy browser looks
        page.locator("#seed input").fill("5")
        page.locator("#seed input").press("Enter")
        wait_for_status(page, r"Step \d+ of 1000")
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


def test_an_animation_plays_and_downloads(visit):
    page = visit()
    generate(page, 8)
    page.get_by_role("button", name="Animate", exact=True).click()
    page.wait_for_selector("#film img")
    assert page.locator("#film img").get_attribute("src").endswith(".gif")
    with page.expect_download() as download:
        page.locator("#film-gif").click()
    with Image.open(download.value.path()) as film:
        assert film.n_frames > 12
    with page.expect_download() as download:
        page.locator("#film-mp4").click()
    assert download.value.path().read_bytes()[4:8] == b"ftyp"


def test_a_morph_goes_from_cat_to_cat(visit):
    page = visit()
    open_tab(page, "Morph")
    page.locator("#morph-seeds textarea, #morph-seeds input").fill("11, 12")
    page.get_by_role("button", name="Morph", exact=True).click()
    page.wait_for_selector("#morph-film img")
    with page.expect_download() as download:
        page.locator("#morph-film-gif").click()
    with Image.open(download.value.path()) as film:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
    assert len(frames) == 24
    assert (frames[0] != frames[12]).any()


def test_a_downloaded_png_brings_its_cat_and_settings_back(visit, tmp_path):
    page = visit()
    choose(page, "coat", "tabby")
    generate(page, 77)
    cat = pixels(page)
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / "cat.png"
    download.value.save_as(path)
    large = decode(path.read_bytes())
    np.testing.assert_array_equal(large[::8, ::8], cat)

    other = visit()
    open_tab(other, "Restore")
    other.locator("#restore input[type=file]").set_input_files(path)
    wait_for_status(other, r"^seed 77 · tabby")
    other.wait_for_selector(DRAWN)
    np.testing.assert_array_equal(pixels(other), cat)
    sync_api.expect(other.locator("#seed input")).to_have_value("77")
    sync_api.expect(other.locator("#coat input")).to_have_value("tabby")


def test_a_link_brings_the_same_cat(visit):
    page = visit()
    page.get_by_label("A new seed for every click").uncheck()
    choose(page, "coat", "black")
    generate(page, 42)
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("window.catLinkCopied")
    sync_api.expect(page.locator("#said")).to_have_text("Copied")
    link = urlsplit(page.evaluate("window.catLinkCopied"))
    other = visit(f"/?{link.query}")
    wait_for_status(other, r"^seed 42 · black .*\ss$")
    np.testing.assert_array_equal(pixels(other), pixels(page))
    sync_api.expect(other.locator("#coat input")).to_have_value("black")


def test_a_link_with_impossible_settings_is_told_and_the_page_works(visit):
    page = visit("/?seed=abc&steps=99999")
    generate(page, 3)


def test_repaint_keeps_what_was_not_painted(visit):
    page = visit()
    generate(page, 21)
    before = pixels(page)
    open_tab(page, "Repaint")
    page.get_by_role("button", name="Take the cat on the stage").click()
    canvas = page.locator("#canvas canvas").first
    canvas.wait_for()
    repaint_the_middle(page)
    changed = (pixels(page) != before).any(axis=2)
    assert 0 < changed.mean() < 0.7


def test_repaint_keeps_what_was_not_painted_of_an_upload(visit, tmp_path):
    size, path = TINY.image_size, tmp_path / "photo.png"
    colours = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((512, 512), Image.Resampling.NEAREST).save(path)
    with Image.open(path) as photo:
        seen = np.array(fit_square(photo.convert("RGB"), size))
    page = visit()
    open_tab(page, "Repaint")
    # Gradio's editor loses a picture that comes before its canvas is there.
    page.locator("#canvas canvas").first.wait_for(state="attached")
    page.locator("#canvas input[type=file]").first.set_input_files(path)
    sync_api.expect(page.locator("#canvas")).not_to_contain_text("Upload an image")
    repaint_the_middle(page)
    changed = (pixels(page) != seen).any(axis=2)
    assert 0 < changed.mean() < 0.7
    assert not changed[:2].any()
    assert not changed[-2:].any()


def repaint_the_middle(page):
    """Paint a stroke over the middle of the picture in the editor, and press Repaint."""
    canvas = page.locator("#canvas canvas").first
    canvas.wait_for()
    page.wait_for_timeout(2000)  # the editor lays out its canvas
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    left, middle = box["x"] + box["width"] * 0.42, box["y"] + box["height"] * 0.45
    page.mouse.move(left, middle)
    page.mouse.down()
    page.mouse.move(left + 25, middle + 15, steps=6)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="Repaint", exact=True).click()
    wait_for_status(page, "a part repainted")
    page.wait_for_selector(DRAWN)


def test_a_picture_becomes_a_cat(visit, tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (300, 200), "orange").save(path)
    page = visit()
    open_tab(page, "From a picture")
    page.get_by_role("button", name="Start from this picture").click()
    sync_api.expect(page.locator("#status [role=alert]")).to_contain_text("picture is missing")
    page.locator("#picture input[type=file]").first.set_input_files(path)
    sync_api.expect(page.locator("#picture")).not_to_contain_text("Upload an image")
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Start from this picture").click()
    wait_for_status(page, "from a picture, strength 0.6")
    page.wait_for_selector(DRAWN)
    page.get_by_role("button", name="Copy link").click()
    sync_api.expect(page.locator("#said")).to_have_text("No link: save the PNG")


def test_a_model_that_appears_is_offered_and_its_coat_chosen(visit, page):
    file = page.studio.library.places[0] / "tinymia.safetensors"
    opened = visit()
    opened.get_by_text("Advanced").click()
    save_tiny(file, seed=3, labels=(*LABELS, "Mia"))
    try:
        choose(opened, "model", "tinymia")
        sync_api.expect(opened.locator("#coat input")).to_have_value("Mia")
        generate(opened, 4)
        assert re.search(r"Mia .* tinymia", status(opened))
        open_tab(opened, "Morph")
        choose(opened, "morph-coats", "Mia")
    finally:
        file.unlink()


@pytest.mark.parametrize("scale", [1, 4])
def test_a_download_has_the_size_that_was_chosen(visit, scale):
    page = visit()
    generate(page, 12)
    page.get_by_label(f"×{scale}").check()
    for _ in range(50):  # the file behind the button is replaced
        with page.expect_download() as download:
            page.locator("#download").click()
        large = decode(download.value.path().read_bytes())
        if len(large) == TINY.image_size * scale:
            break
        page.wait_for_timeout(100)
    np.testing.assert_array_equal(large[::scale, ::scale], pixels(page))


def test_enter_generates_from_any_number(visit):
    page = visit()
    field = page.locator("#count input[type=number]")
    field.fill("2")
    field.press("Enter")
    wait_for_status(page, r"^2 cats from seed .*\ss$")


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


def test_variations_and_the_strip(visit):
    page = visit()
    generate(page, 50)
    one = pixels(page)
    open_tab(page, "Variations")
    page.get_by_role("button", name="Vary", exact=True).click()
    wait_for_status(page, "^9 cats from seed 50")
    assert page.locator(".stage img.cat").count() == 9
    page.locator("#strip button").nth(9).click()  # the cat from before the variations
    wait_for_status(page, "^seed 50 · any coat · 12 steps")
    page.wait_for_selector(DRAWN)
    np.testing.assert_array_equal(pixels(page), one)
    with page.expect_download() as download:
        page.locator("#zip").click()
    assert len(zipfile.ZipFile(download.value.path()).namelist()) >= 10


def test_a_cat_is_picked_out_of_many(visit):
    page = visit()
    page.locator("#count input[type=number]").fill("4")
    page.locator("#seed input").fill("60")
    page.locator("#seed input").press("Enter")
    wait_for_status(page, r"^4 cats from seed 60 .*\ss$")
    third = pixels(page, 2)
    page.get_by_role("button", name="Generated cat: seed 62").click()
    wait_for_status(page, r"^seed 62 .*\ss$")
    assert page.locator(".stage img.cat").count() == 1
    np.testing.assert_array_equal(pixels(page), third)
    sync_api.expect(page.locator("#seed input")).to_have_value("62")
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "cat-62.png"
    assert page.locator(".stage button").count() == 0  # alone, there is nothing to pick
    page.locator(".stage").click()
    wait_for_status(page, r"^seed 62 .*\ss$")


def test_a_second_click_draws_the_second_cat(visit, page):
    visitor = visit()
    with Gate(page.studio, open=False) as gate:
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_a_phone(visit, scheme):
    page = visit(width=390, height=844, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(value) for value in re.findall(r"\d+", colour)[:3]])
    assert (brightness < 60) == (scheme == "dark")
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
