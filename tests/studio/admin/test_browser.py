"""The Admin tab in a real browser: the owner teaches the tiny model a cat, to the very end."""

from __future__ import annotations

import base64
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
from admin_fixtures import PASSWORD
from browsing import CHROMIUM, DRAWN, browser, choose, generate, open_tab, sync_api  # noqa: F401
from drawing import cat, cats, encode, write_folder, write_zip
from studio_fixtures import launch_page, save_tiny

from studio.admin.parts import build_admin
from studio.drawing.library import ModelLibrary
from studio.drawing.worker import Studio
from studio.settings import Settings
from studio.training import process

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
PATIENCE = 180_000  # ms: a training starts a program of its own, which imports much
expect = sync_api.expect


@pytest.fixture(scope="module")
def served(tmp_path_factory, upload_folder):
    """The page over the tiny model, with real trainings."""
    folder = tmp_path_factory.mktemp("owner")
    shipped = save_tiny(folder / "shipped" / "tiny.safetensors").parent
    data = folder / "data"
    studio = Studio(ModelLibrary([shipped, data / "models"], default="tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADMIN_PASSWORD", PASSWORD)
        admin = build_admin(Settings(data_dir=data), studio)
        patch.setattr(process, "_lower_priority", lambda pid: None)  # this test waits for it
        admin.trainings.start()
        yield launch_page(studio, data, admin), admin
        admin.trainings.close()


@pytest.fixture
def visit(browser, served):  # noqa: F811
    """Opens the Admin tab; in the end nothing was asked of other hosts and nothing went wrong."""
    address = served[0].url
    contexts, troubles, hosts = [], [], set()

    def note(message):
        if message.type == "error" and "401 (Unauthorized)" not in message.text:
            troubles.append(message.text)

    def open_page(*, width=1440, height=1000, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", note)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(address)
        open_tab(page, "Admin")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles
    assert hosts - {None, ""} == {urlsplit(address).hostname}


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
        expect(again).to_have_count(0)
    return page


def training(page):
    return page.locator("#admin-training .admin-training")


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


# -- photos -----------------------------------------------------------------------------------


def test_a_folder_and_a_zip_are_looked_at_cropped_and_chosen(visit, tmp_path):
    folder = write_folder(
        tmp_path / "Mia",
        {
            **{f"{name[-5]}/{name}": data for name, data in cats(9, 192).items()},
            "notes.txt": b"no picture", "cut.jpg": encode(cat(1, 192), "JPEG")[:700],
            "small.png": encode(cat(2, 16)), "twin.png": encode(cat(3, 192)), ".hidden": b"x",
        },
    )  # fmt: skip
    more = {f"猫/{name}": data for name, data in list(cats(12, 192).items())[9:]}
    page = start_over(enter(visit()))
    send(page, 1, folder)
    expect(counts(page)).to_have_text("9 photos to learn from · 4 left out")
    lines = page.locator(".admin-left-out li").all_inner_texts()
    assert sorted(line for line in lines if "twin" not in line and "cat-003" not in line) == [
        "Mia/cut.jpg: damaged or incomplete",
        "Mia/notes.txt: not an image",
        "Mia/small.png: 16x16 is too small (at least 64 pixels each way)",
    ]
    send(page, 0, write_zip(tmp_path / "more.zip", more))
    expect(counts(page)).to_have_text("12 photos to learn from · 4 left out")
    expect(page.locator(".admin-photo[title='more.zip/猫/cat-010.png']")).to_be_visible()
    for image in page.locator(".admin-photo img").all():
        image.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('.admin-photo img')].every((i) => i.naturalWidth === 128)"
    )

    first = page.locator(".admin-photo").first
    before = first.locator("img").get_attribute("src")
    first.click()
    box = page.locator(".admin-crop img").bounding_box()
    x, y, side = box["x"], box["y"], box["width"]
    page.mouse.move(x + side * 0.25, y + side * 0.25)
    page.mouse.down()
    page.mouse.move(x + side * 0.75, y + side * 0.7, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Use this square").click()
    expect(page.locator("dialog")).to_have_count(0)
    left, top, size = map(int, first.get_attribute("data-square").split(","))
    assert (left, top, size) == pytest.approx((48, 48, 96), abs=2)
    assert first.locator("img").get_attribute("src") != before
    expect(first).to_be_focused()

    page.keyboard.press("Enter")
    page.get_by_role("button", name="Remove this photo").click()
    expect(counts(page)).to_have_text("11 photos to learn from · 1 removed · 4 left out")
    first.click()
    page.get_by_role("button", name="Put back").click()
    expect(counts(page)).to_have_text("12 photos to learn from · 4 left out")
    first.click()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)

    other = enter(visit())  # another device
    expect(counts(other)).to_have_text("12 photos to learn from · 4 left out")


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


def test_photos_can_be_dropped(visit):
    page = start_over(enter(visit()))
    photos = list(cats(3, 64).values())
    drop(page, photos)
    expect(counts(page)).to_have_text("3 photos to learn from · at least 8 are needed")
    page.locator("#admin-name").locator("input, textarea").fill("Mia")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#admin-start-message [role=alert]")).to_contain_text("at least 8")


def test_a_folder_can_be_dropped(visit, tmp_path):
    photos = list(cats(3, 64).values())
    folder = write_folder(tmp_path / "Mia", {
        "a.png": photos[0], "deep/er/b.png": photos[1], "deep/c.png": photos[2], ".DS_Store": b"x",
    })  # fmt: skip
    page = start_over(enter(visit()))
    area = page.locator(".admin-drop").bounding_box()
    mouse = page.context.new_cdp_session(page)  # a drop that the page takes for the system's own
    for kind in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {
            "type": kind, "x": area["x"] + 20, "y": area["y"] + 20,
            "data": {"items": [], "files": [str(folder)], "dragOperationsMask": 1},
        })  # fmt: skip
    expect(counts(page)).to_have_text("3 photos to learn from · at least 8 are needed")
    for name in ("a.png", "deep/er/b.png", "deep/c.png"):
        expect(page.locator(f".admin-photo[title='Mia/{name}']")).to_be_visible()


def test_photos_are_chosen_and_cropped_with_keys_alone(visit, tmp_path):
    page = start_over(enter(visit()))
    for key in ("Enter", " "):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose photos or a zip").press(key)
    (photo := tmp_path / "wide.png").write_bytes(encode(cat(1, 200).resize((200, 100))))
    chooser.value.set_files(photo)
    photo = page.locator(".admin-photo")
    photo.press("Enter")
    frame = page.get_by_role("group", name="Square")
    frame.focus()
    for keys, square in (
        ("ArrowLeft ArrowLeft", (46, 0, 100)), ("- - -", (49, 3, 94)), ("ArrowDown", (49, 5, 94)),
        ("ArrowUp ArrowRight", (51, 3, 94)), ("+ +", (49, 1, 98)), ("+ +", (47, 0, 100)),
    ):  # fmt: skip
        for key in keys.split():
            frame.press(key)
        style = frame.get_attribute("style")
        left, top, side = (float(re.search(rf"{part}: ([\d.]+)%", style)[1]) for part in
                           ("left", "top", "width"))  # fmt: skip
        assert (2 * left, top, 2 * side) == pytest.approx(square, abs=1.1)
    page.get_by_role("button", name="Centre").press("Enter")
    page.get_by_role("button", name="Use this square").press("Enter")
    expect(photo).to_have_attribute("data-square", "50,0,100")
    expect(photo).to_be_focused()


def test_photos_dropped_while_others_are_being_sent_are_sent_too(visit):
    page = start_over(enter(visit()))
    held, holding = [], True
    page.route("**/admin/upload*", lambda r: held.append(r) if holding else r.continue_())
    photos = list(cats(6, 64).values())
    for part in (photos[:4], photos[4:]):
        drop(page, part)
    message = page.locator(".admin-drop .admin-message")
    expect(message).to_have_text("Sent 0 of 6")
    holding = False
    for route in held:
        route.continue_()
    expect(counts(page)).to_have_text("6 photos to learn from · at least 8 are needed")

    holding = True
    drop(page, photos[:1])
    expect(message).to_have_text("Sent 0 of 1")
    page.get_by_role("button", name="Start over").click()  # asks nothing now
    expect(message).to_contain_text("still being sent")
    expect(counts(page)).to_contain_text("6 photos")
    held[-1].continue_()


def test_photos_that_arrive_leave_the_eyes_and_the_focus_where_they_are(visit):
    page = start_over(enter(visit(height=700, width=390)))
    photos = list(cats(41, 64).values())
    drop(page, photos[:40])
    expect(counts(page)).to_contain_text("40 photos")
    at = page.locator(".admin-photo").nth(30)
    at.focus()
    scrolled = page.locator(".admin-photos").evaluate("list => list.scrollTop")
    assert scrolled > 0
    drop(page, photos[40:])
    expect(counts(page)).to_contain_text("41 photos")
    expect(at).to_be_focused()
    assert page.locator(".admin-photos").evaluate("list => list.scrollTop") == scrolled


def test_photos_that_could_not_be_looked_up_are_not_put_away(visit):
    page = start_over(enter(visit()))
    photos = list(cats(3, 64).values())
    drop(page, photos)
    expect(counts(page)).to_contain_text("3 photos")

    broken = True
    again = visit()
    again.route(
        "**/admin/sets/current", lambda r: r.fulfill(status=401) if broken else r.continue_()
    )
    enter(again)
    drop(again, photos[:1])
    expect(again.locator(".admin-drop .admin-message")).to_have_text("Nothing was sent. Try again.")
    broken = False
    expect(counts(again)).to_contain_text("3 photos")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (390, 844), (844, 390)])
def test_a_portrait_keeps_its_proportions_and_the_square_is_one(visit, width, height):
    page = start_over(enter(visit(width=width, height=height)))
    drop(page, [encode(cat(1, 160).resize((90, 160)))])
    page.locator(".admin-photo").click()
    picture = page.locator(".admin-crop img").bounding_box()
    square = page.locator(".admin-crop-picture div").bounding_box()
    assert picture["height"] / picture["width"] == pytest.approx(160 / 90, rel=0.02)
    assert square["width"] == pytest.approx(square["height"], abs=1)
    assert picture["height"] <= 0.6 * height + 1


def test_photos_of_two_devices_come_together(visit):
    page, other = (enter(visit()) for _ in range(2))
    start_over(page)
    photos = list(cats(5, 64).values())
    drop(page, photos[:3])
    expect(counts(page)).to_contain_text("3 photos")
    drop(other, photos[3:])
    expect(counts(other)).to_contain_text("5 photos")
    held = []
    page.route("**/admin/upload*", lambda route: held.append(route))
    drop(page, list(cats(6, 64).values())[5:])
    expect(page.locator(".admin-drop .admin-message")).to_have_text("Sent 0 of 1")
    page.get_by_role("button", name="Start", exact=True).click()  # before all are here
    expect(page.locator(".admin-drop .admin-message")).to_contain_text("still being sent")
    held[-1].continue_()
    expect(counts(page)).to_contain_text("6 photos")


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
    page.get_by_role("button", name=re.compile("^Log")).click()
    page.wait_for_timeout(3_000)  # it stays open while the figures change
    expect(page.locator("#admin-log pre")).to_contain_text("pictures, 0 left out")
    page.get_by_role("button", name="Stop and keep").click()
    expect(training(page)).to_have_attribute(
        "data-state", re.compile("stopped|done"), timeout=PATIENCE
    )
    expect(page.locator("#admin-models")).to_contain_text("Download mia", timeout=30_000)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download mia").click()
    assert download.value.path().stat().st_size > 10_000

    open_tab(page, "Generate")
    page.wait_for_selector(DRAWN)
    page.get_by_role("button", name="Advanced").click()
    choose(page, "model", "mia")
    choose(page, "coat", "Mia")
    generate(page, 5)
    source = page.locator(".stage img.cat").get_attribute("src")
    assert source.startswith("data:image/png")
    expect(page.locator("#status p")).to_contain_text("Mia")

    open_tab(page, "Admin")
    page.get_by_text("Compare with the base model").click()
    choose(page, "admin-compare-tuned", "mia")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator("#admin-compared img")).to_have_count(8)

    asked = []
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.get_by_role("button", name="Cancel and delete").click()
    expect(page.locator("#admin-training")).to_contain_text("Nothing has been trained yet")
    choose(page, "admin-model", "mia")
    page.locator("#admin-delete").click()
    expect(page.locator("#admin-models")).to_contain_text("You have no models of your own yet")
    cancelled, deleted = asked
    assert re.fullmatch(r"Cancel and delete: Mia · \w+\? This cannot be undone\.", cancelled)
    assert deleted == "Delete: mia? This cannot be undone."


# -- looks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_a_phone_and_everything_has_a_name(visit, scheme, tmp_path):
    page = enter(visit(width=390, height=844, scheme=scheme))
    start_over(page)
    send(page, 0, write_zip(tmp_path / ("long" * 30 + ".zip"), {"x" * 150 + ".png": b"bad"}))
    expect(page.locator(".admin-left-out li")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(value) for value in re.findall(r"\d+", colour)[:3]])
    assert (brightness < 60) == (scheme == "dark")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('#admin-room button, #admin-room input, '
          + '#admin-room textarea, #admin-room img')].filter((e) => e.offsetParent &&
          !(e.innerText || e.alt || e.title || e.ariaLabel || e.labels?.length)).map((e) =>
          e.outerHTML)"""
    )
    assert not nameless
