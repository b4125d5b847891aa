"""The Admin tab in a real browser: the owner teaches the tiny model a cat, to the very end."""

from __future__ import annotations

import re

import pytest
from admin_browsing import counts, enter, send, sign_in, start_over, training
from browsing import (  # noqa: F401 - the browser is a fixture
    DRAWN,
    IN_BROWSER,
    browser,
    choose,
    generate,
    in_both_schemes,
    open_tab,
    pick,
    sync_api,
    wait_for_status,
)
from drawing import cats, write_folder, write_zip

pytestmark = IN_BROWSER
PATIENCE = 180_000  # ms: a training starts a program of its own, which imports much
expect = sync_api.expect


# -- the door ---------------------------------------------------------------------------------


def test_a_wrong_password_is_told_and_the_right_one_opens(visit):
    page = visit()
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("The password is wrong.")
    expect(page.locator(".admin-drop")).to_have_count(0)
    page.wait_for_timeout(600)  # the delay
    enter(page)
    expect(page.get_by_label("Password")).to_have_count(0)
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    expect(page.locator(".admin-drop")).to_have_count(0)
    page.reload()
    open_tab(page, "Admin")
    expect(page.get_by_label("Password")).to_be_visible()


# -- a training -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_outlives_a_reload_and_its_model_draws(visit, tmp_path):
    page = start_over(enter(visit()))
    send(page, 1, write_folder(tmp_path / "Mia", cats(10, 64)))
    expect(counts(page)).to_have_text("10 photos to learn from")
    page.locator("#admin-name").locator("input, textarea").fill("Mia")
    page.get_by_label("Thorough").check()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#admin-start-message")).to_contain_text("in the queue")
    expect(training(page)).to_contain_text("images shown", timeout=PATIENCE)
    expect(training(page)).to_have_attribute("data-state", "running")
    expect(page.locator("#admin-said")).to_have_text("Mia is being taught.")

    page.reload()
    open_tab(page, "Admin")
    expect(training(page)).to_have_attribute("data-state", "running")
    expect(page.locator("#admin-pause")).to_be_enabled()
    expect(page.locator("#admin-resume")).to_be_disabled()
    other = enter(visit(width=390, height=844, scheme="dark"))
    expect(training(other)).to_have_attribute("data-state", "running")

    expect(page.locator("#admin-samples img").first).to_be_visible(timeout=PATIENCE)
    page.wait_for_function(
        "[...document.querySelectorAll('#admin-samples img')].every((i) => i.naturalWidth > 16)"
    )
    assert re.fullmatch(r"(preparing|last check|\d+ %) · Mia", page.title())
    page.get_by_role("button", name=re.compile("^Details")).click()
    page.wait_for_timeout(3_000)  # it stays open while the figures change
    expect(page.locator("#admin-log pre")).to_contain_text("pictures, 0 left out")
    page.get_by_role("button", name="Stop and keep").click()
    expect(training(page)).to_have_attribute(
        "data-state", re.compile("stopped|done"), timeout=PATIENCE
    )
    link = page.get_by_role("link", name="Download Mia")
    expect(link).to_be_visible(timeout=30_000)
    with page.expect_download() as download:
        link.click()
    assert download.value.path().stat().st_size > 10_000

    open_tab(page, "Generate")
    page.wait_for_selector(DRAWN)
    choose(page, "model", "Mia")
    pick(page, "coat", "Mia")
    generate(page, 5)
    source = page.locator(".stage img.cat").get_attribute("src")
    assert source.startswith("data:image/png")
    expect(page.locator("#status p")).to_contain_text("Mia")

    open_tab(page, "Admin")
    expect(page.locator(".admin-ready")).to_contain_text("Mia is ready")
    page.get_by_role("link", name="Draw Mia", exact=True).click()
    wait_for_status(page, r"^seed 25 · Mia .*\ss$")


# -- looks ------------------------------------------------------------------------------------


def test_nothing_overflows_a_phone_and_everything_has_a_name(visit, tmp_path):
    page = enter(visit(width=390, height=844))
    start_over(page)
    send(page, 0, write_zip(tmp_path / ("long" * 30 + ".zip"), {"x" * 150 + ".png": b"bad"}))
    expect(page.locator(".admin-left-out li")).to_have_count(1)
    for _ in in_both_schemes(page):
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('#admin-room button, #admin-room input, '
          + '#admin-room textarea, #admin-room img')].filter((e) => e.offsetParent &&
          !(e.innerText || e.alt || e.title || e.ariaLabel || e.labels?.length)).map((e) =>
          e.outerHTML)"""
    )
    assert not nameless
