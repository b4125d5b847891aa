"""Both tabs as axe-core sees them: what keeps out those who cannot see well, or use no mouse."""

from __future__ import annotations

import pytest
from admin_browsing import enter
from browsing import DRAWN, IN_BROWSER, browser, open_tab  # noqa: F401

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
pytestmark = [*IN_BROWSER, pytest.mark.slow]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_keeps_anybody_out(visit, scheme):
    page = enter(visit(scheme=scheme))
    assert serious_faults(page) == []
    open_tab(page, "Generate")
    page.wait_for_selector(DRAWN)
    page.get_by_text("Advanced").first.click()
    for tool in ("Variations", "Animate"):
        page.locator("#play").get_by_role("tab", name=tool, exact=True).click()
        assert serious_faults(page) == []


def serious_faults(page):
    """Rule and elements of each."""
    found = axe.Axe().run(page).response["violations"]
    return [
        (fault["id"], [node["html"] for node in fault["nodes"]])
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
