"""What the tabs below the stage do, in a real browser."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from browsing import (  # noqa: F401 - fixtures
    DRAWN,
    IN_BROWSER,
    browser,
    decode,
    generate,
    open_tab,
    pick,
    pixels,
    status,
    sync_api,
    wait_for_status,
)
from PIL import Image, ImageSequence
from studio_fixtures import TINY

from diffusion.data.images import fit_square

pytestmark = [*IN_BROWSER, pytest.mark.slow]


def test_an_animation_plays_and_downloads(visit, page_gate):
    page = visit()
    generate(page, 8)
    with page_gate.close():
        page.get_by_role("button", name="Animate", exact=True).click()
        sync_api.expect(page.locator("#animate")).to_be_in_viewport()  # before the film is there
    page.wait_for_selector("#film img")
    with page_gate.close():
        page.locator("#animate").click()
        # Nobody shall take the old one for the new one.
        sync_api.expect(page.locator("#film")).to_be_hidden()
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


def test_a_film_can_be_stopped(visit, page_gate):
    page = visit()
    open_tab(page, "Morph")
    page.locator("#morph-seeds textarea, #morph-seeds input").fill("11, 12")
    with page_gate.close() as gate:
        page.get_by_role("button", name="Morph", exact=True).click()
        sync_api.expect(page.locator("#stop")).to_be_visible()
        page.locator("#stop").click()
        gate.event.set()
        sync_api.expect(page.locator("#play [role=alert]")).to_contain_text("Stopped before")
    sync_api.expect(page.locator("#stop")).to_be_hidden()


def test_a_downloaded_png_brings_its_cat_and_settings_back(visit, tmp_path):
    page = visit()
    pick(page, "coat", "tabby")
    generate(page, 77)
    cat = pixels(page)
    with page.expect_download() as download:
        page.locator("#save").click()
    path = tmp_path / "cat.png"
    download.value.save_as(path)
    large = decode(path.read_bytes())
    smooth = Image.fromarray(cat).resize((128, 128), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(large, np.array(smooth))

    other = visit()
    open_tab(other, "Restore")
    other.locator("#restore input[type=file]").set_input_files(path)
    wait_for_status(other, r"^seed 77 · tabby")
    other.wait_for_selector(DRAWN)
    np.testing.assert_array_equal(pixels(other), cat)
    sync_api.expect(other.locator("#seed input")).to_have_value("77")
    sync_api.expect(other.locator("#coat input:checked")).to_have_value("tabby")


def test_repaint_keeps_what_was_not_painted(visit):
    page = visit()
    generate(page, 21)
    before = pixels(page)
    page.get_by_role("button", name="Repaint", exact=True).click()
    page.locator("#canvas canvas").first.wait_for()
    sync_api.expect(page.locator("#canvas")).not_to_contain_text("Upload an image")
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
    page.locator("#repaint").click()
    wait_for_status(page, "partly repainted")
    page.wait_for_selector(DRAWN)


def test_a_picture_becomes_a_cat(visit, tmp_path):
    path = tmp_path / "photo.png"
    Image.new("RGB", (300, 200), "orange").save(path)
    page = visit()
    open_tab(page, "From a picture")
    seed, told = page.locator("#seed input").input_value(), status(page)
    page.get_by_role("button", name="Start from this picture").click()
    note = page.locator("#picture-note [role=alert]")
    sync_api.expect(note).to_contain_text("picture is missing")
    assert (page.locator("#seed input").input_value(), status(page)) == (seed, told)
    page.locator("#picture input[type=file]").first.set_input_files(path)
    sync_api.expect(page.locator("#picture")).not_to_contain_text("Upload an image")
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Start from this picture").click()
    wait_for_status(page, "from a picture, strength 0.55")
    page.wait_for_selector(DRAWN)
    page.get_by_role("button", name="Share").click()
    sync_api.expect(page.locator("#said")).to_have_text("No link: save the PNG")


def test_variations_and_the_strip(visit):
    page = visit()
    generate(page, 50)
    one = pixels(page)
    open_tab(page, "Variations")
    page.get_by_role("button", name="Vary", exact=True).click()
    wait_for_status(page, "^9 cats from seed 50")
    assert page.locator(".stage img.cat").count() == 9
    page.locator("#strip .thumb").nth(9).click()  # the cat from before the variations
    wait_for_status(page, "^seed 50 · any coat · 12 steps")
    page.wait_for_selector(DRAWN)
    np.testing.assert_array_equal(pixels(page), one)
    page.get_by_text("Downloads").click()
    with page.expect_download() as download:
        page.locator("#zip").click()
    assert len(zipfile.ZipFile(download.value.path()).namelist()) >= 10
