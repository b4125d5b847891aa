"""What the owner does in the Admin tab of a real browser."""

from __future__ import annotations

import base64

from admin_fixtures import PASSWORD
from browsing import sync_api

DROP_PHOTOS = """(photos) => {
  const transfer = new DataTransfer();
  photos.forEach((photo, i) => {
    const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
    transfer.items.add(new File([bytes], `dropped ${i}.png`, {type: 'image/png'}));
  });
  const area = document.querySelector('.admin-drop');
  area.dispatchEvent(
    new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""


def drop(page, photos):
    page.evaluate(DROP_PHOTOS, [base64.b64encode(data).decode() for data in photos])


def sign_in(page, password=PASSWORD):
    page.get_by_label("Password").fill(password)
    page.get_by_label("Password").press("Enter")


def enter(page):
    sign_in(page)
    page.wait_for_selector(".admin-drop")
    return page


def counts(page):
    return page.locator("#admin-photos .admin-counts")


def send(page, which, path):
    page.locator(".admin-drop input[type=file]").nth(which).set_input_files(path)


def start_over(page):
    """An empty set, whatever an earlier test has left."""
    page.wait_for_selector("#admin-photos [data-set]", state="attached")
    again = page.get_by_role("button", name="Start over")
    if again.count():
        again.click()
        sync_api.expect(again).to_have_count(0)
    return page


def training(page):
    return page.locator("#admin-training .admin-training")
