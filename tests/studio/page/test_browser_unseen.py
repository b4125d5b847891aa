"""Pictures that the browser cannot decode, chosen or dropped in the page's editors."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from browsing import (  # noqa: F401 - a fixture
    DRAWN,
    IN_BROWSER,
    browser,
    generate,
    open_tab,
    sync_api,
    visits,
)
from PIL import Image

pytestmark = IN_BROWSER
UNSEEN = {
    "tiff": "Your browser cannot show TIFF pictures. Save it as JPEG or PNG first.",
    "HEIC": "Your browser cannot show HEIC pictures. Save it as JPEG or PNG first.",
    "jpg": "Your browser cannot show this file. Choose another, or save it as JPEG or PNG first.",
}
DROP = """(editor, [name, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const place = editor.querySelector('button, canvas') ?? editor;
  for (const kind of ['dragenter', 'dragover', 'drop']) {
    place.dispatchEvent(new DragEvent(
      kind, {bubbles: true, cancelable: true, dataTransfer: transfer}));
  }
}"""


@pytest.fixture
def visit(browser, page):  # noqa: F811 - the fixture
    with visits(browser, page.url, known="The source image could not be decoded.") as open_page:

        def visit():
            opened = open_page()
            opened.wait_for_selector(DRAWN)
            return opened

        yield visit


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A TIFF, a HEIC that holds no picture, a JPEG that is none, and a PNG."""
    drawn = Image.new("RGB", (300, 200), "orange")
    files = {end: tmp_path / f"cat.{end}" for end in ("tiff", "HEIC", "jpg", "png")}
    drawn.save(files["tiff"])
    drawn.save(files["png"])
    files["HEIC"].write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    files["jpg"].write_bytes(b"a word")
    return files


def test_a_picture_that_the_browser_cannot_decode_is_said_to_be_so(visit, files):
    page = visit()
    for tab, editor in (("From a picture", "picture"), ("Repaint", "canvas")):
        open_tab(page, tab)
        page.locator(f"#{editor} canvas").first.wait_for(state="attached")
        line = page.locator(f"#{editor}-unseen [role=alert]")
        choose = page.locator(f"#{editor} input[type=file]").first
        for end, words in UNSEEN.items():
            choose.set_input_files(files[end])
            sync_api.expect(line).to_have_text(words)
            sync_api.expect(line).to_be_in_viewport()
        choose.set_input_files(files["png"])
        sync_api.expect(line).to_have_text("")
        sync_api.expect(page.locator(f"#{editor}")).not_to_contain_text("Upload an image")


@pytest.mark.slow
def test_a_dropped_one_too_until_the_cat_on_the_stage_is_taken(visit, files):
    page = visit()
    generate(page, 21)
    open_tab(page, "Repaint")
    editor = page.locator("#canvas")
    editor.locator("canvas").first.wait_for(state="attached")
    data = base64.b64encode(files["HEIC"].read_bytes()).decode()
    editor.evaluate(DROP, ["cat.heic", data])
    line = page.locator("#canvas-unseen [role=alert]")
    sync_api.expect(line).to_contain_text("cannot show HEIC pictures")
    page.locator("#take").click()
    sync_api.expect(line).to_have_text("")
