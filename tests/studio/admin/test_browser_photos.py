"""Photos in the Admin tab of a real browser: sent, dropped, looked at, cropped and chosen."""

from __future__ import annotations

import re

import pytest
from admin_browsing import counts, drop, enter, send, start_over
from browsing import IN_BROWSER, browser, held_back, sync_api  # noqa: F401
from drawing import cat, cats, encode, write_folder, write_zip

pytestmark = [*IN_BROWSER, pytest.mark.slow]
expect = sync_api.expect


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
    expect(page.locator("dialog[open]")).to_have_count(0)
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
    expect(page.locator("dialog[open]")).to_have_count(0)

    other = enter(visit())  # another device
    expect(counts(other)).to_have_text("12 photos to learn from · 4 left out")


def test_photos_can_be_dropped(visit):
    page = start_over(enter(visit()))
    photos = list(cats(3, 64).values())
    drop(page, photos)
    expect(counts(page)).to_have_text("3 photos to learn from · at least 8 are needed")
    page.locator("#admin-name").locator("input, textarea").fill("Mia")
    page.get_by_role("button", name="Start", exact=True).click()
    wrong = page.locator("#admin-start-message [role=alert]")
    expect(wrong).to_contain_text("at least 8")
    page.locator("#admin-name").locator("input, textarea").fill("Tom")  # whoever mends it
    expect(wrong).to_have_count(0)
    with held_back(page, "**/gradio_api/run/**"):
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator("#admin-start-message")).to_contain_text("Preparing the photos…")
    expect(wrong).to_contain_text("at least 8")


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
