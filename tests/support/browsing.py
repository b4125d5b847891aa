"""Chromium for the tests of the page, and what a person does in it."""

from __future__ import annotations

import base64
import io
import re
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
PATIENCE = 90_000  # ms; a machine that is busy with other work takes its time
sync_api.expect.set_options(timeout=PATIENCE)
DRAWN = ".stage[aria-busy=false] img.cat"
IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]  # the marks of a module of such tests


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def visits(browser, address, *, told=0, known=None):
    """Yields what opens an address in a window of its own.

    In the end no request has left this machine and nothing has gone wrong; answers with the status
    ``told`` may come, and so may the error ``known`` of Gradio's own scripts.
    """
    contexts, troubles, hosts = [], [], set()

    def note(message):
        if message.type == "error" and not (told and f"status of {told} " in message.text):
            troubles.append(message.text)

    def broke(error):
        if str(error) != known:
            troubles.append(str(error))

    def answered(response):
        if response.status >= 400 and response.status != told:
            troubles.append(response.url)

    def open_page(path="/", *, width=1440, height=1000, scheme="light", touch=False):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=touch,
            accept_downloads=True,
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", note)
        page.on("pageerror", broke)
        page.on("response", answered)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles, troubles
    assert hosts - {None, ""} == {urlsplit(address).hostname}


def pixels(page, nth=0):
    """The pixels of the nth cat on the stage."""
    source = page.locator(".stage img.cat").nth(nth).get_attribute("src")
    return decode(base64.b64decode(source.split(",", 1)[1]))


def decode(data):
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def in_both_schemes(page):
    """Yields once the page is light, then once it is dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        until(page, lambda scheme=scheme: (brightness(page) < 60) == (scheme == "dark"))
        yield


def brightness(page):
    """Of the page's background: 0 is black, 255 white."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return np.mean([int(value) for value in re.findall(r"\d+", colour)[:3]])


def status(page):
    return page.locator("#status p").inner_text()


def wait_for_status(page, pattern):
    sync_api.expect(page.locator("#status p")).to_have_text(re.compile(pattern))


def generate(page, seed):
    """Fill in a seed and press Enter, then wait until its cat is there."""
    field = page.locator("#seed input")
    field.fill(str(seed))
    page.evaluate(TWO_FRAMES)  # nobody presses Enter before Gradio has seen the last digit
    field.press("Enter")
    wait_for_status(page, rf"^seed {seed} .*\ss$")


def choose(page, dropdown, option):
    page.locator(f"#{dropdown} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def pick(page, chips, value):
    """Choose one of a row of chips."""
    page.locator(f'#{chips} label:has(input[value="{value}"])').click()


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def until(page, condition):
    """Wait while the browser's events are heard."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError("waited in vain")


@contextmanager
def held_back(page, pattern):
    """Requests to such an address wait until the block ends; yields those that came."""
    held, holding = [], True
    page.route(pattern, lambda route: held.append(route) if holding else route.continue_())
    yield held
    holding = False
    for route in held:
        route.continue_()
