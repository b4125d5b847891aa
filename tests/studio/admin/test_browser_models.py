"""The owner's models in a real browser: compared, made the page's cat, renamed and deleted."""

from __future__ import annotations

import pytest
from admin_browsing import enter
from browsing import DRAWN, IN_BROWSER, browser, generate, open_tab, sync_api, wait_for_status  # noqa: F401
from studio_fixtures import LABELS, save_tiny

pytestmark = IN_BROWSER
expect = sync_api.expect


@pytest.fixture
def mia(served, tmp_path):
    """A model of the owner's, as a training leaves one; gone in the end."""
    _, admin = served
    file = save_tiny(tmp_path / "mia.safetensors", seed=3, labels=(*LABELS, "Mia"), taught=True)
    name = admin.models.add(file, "Mia", base="tiny", photos=10)
    yield name
    if name in admin.models.names():
        admin.models.delete(name)


def test_a_model_is_compared_made_the_pages_cat_renamed_and_deleted(visit, mia):
    page = enter(visit())
    card = page.locator(".admin-card")
    expect(card).to_contain_text("10 photos · from tiny")
    card.get_by_role("button", name="Compare Mia").click()
    expect(page.locator(".admin-pairs img")).to_have_count(8)
    page.wait_for_function(
        "[...document.querySelectorAll('.admin-pairs img')].every((i) => i.naturalWidth === 2048)"
    )
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)

    card.get_by_role("button", name="Make default Mia").click()
    expect(card).to_contain_text("The page’s cat")
    title = page.get_by_label("Name of the model")
    title.fill("Mia of the Hill")
    title.press("Enter")
    expect(page.locator("#admin-model-message")).to_contain_text("called Mia of the Hill")
    expect(page.get_by_role("button", name="Compare Mia of the Hill")).to_be_visible()
    expect(title).to_be_focused()  # though the cards were drawn anew
    fresh = visit()
    open_tab(fresh, "Generate")
    fresh.wait_for_selector(DRAWN)
    expect(fresh.locator("#coat input:checked")).to_have_value("Mia")
    expect(fresh.locator("#model input")).to_have_value("Mia of the Hill")

    asked = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#admin-models")).to_contain_text("You have no models of your own yet")
    assert asked == ["Delete: Mia of the Hill? This cannot be undone."]


@pytest.mark.slow
def test_the_face_of_a_card_leads_to_its_cat(visit, mia):
    page = enter(visit())
    page.get_by_role("link", name="A cat by Mia").click()
    wait_for_status(page, r"^seed 25 · Mia .* mia · .*\ss$")
    expect(page.locator("#coat input:checked")).to_have_value("Mia")
