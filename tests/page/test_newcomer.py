"""A newcomer's path in five clicks, as a film strip; the pictures of the documentation come from here."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from service.roomqa.walks.export import write_walk
from tests.page.conftest import PHONE, Open, answered, first_room

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
OUT = ROOT / "docs" / "images" if os.environ.get("PAGE_PICTURES") == "1" else ROOT / "build" / "page"
MOST_BYTES = 150_000
SEED_MARK = "Room 30"
WALK = 7


def save(shown: Page | Locator, name: str, width: int = 1100) -> Image.Image:
    """Take a picture for the documentation, small enough to be kept."""
    picture = Image.open(io.BytesIO(shown.screenshot(animations="disabled"))).convert("RGB")
    if picture.width > width:
        picture = picture.resize(
            (width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS
        )
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.webp"
    for quality in (88, 78, 65, 50):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            return picture
    raise AssertionError(f"{path.name} is too large")


def strip(pictures: list[Image.Image], name: str) -> None:
    """Put pictures in rows of three, in order."""
    width, gap = 520, 8
    height = round(pictures[0].height * width / pictures[0].width)
    film = Image.new("RGB", (3 * (width + gap) - gap, 2 * (height + gap) - gap), "#888")
    for at, one in enumerate(pictures):
        row, column = divmod(at, 3)
        film.paste(one.resize((width, height)), (column * (width + gap), row * (height + gap)))
    OUT.mkdir(parents=True, exist_ok=True)
    film.save(OUT / f"{name}.webp", "WEBP", quality=70, method=6)
    assert (OUT / f"{name}.webp").stat().st_size <= MOST_BYTES


def test_five_clicks(open_page: Open) -> None:
    """Open, new room, ask, compare, see the groups."""
    page = open_page()  # the first click: a link to the page
    first_room(page)
    film = [Image.open(io.BytesIO(page.screenshot())).convert("RGB")]
    clicks = 1

    def click(name: str) -> None:
        nonlocal clicks
        page.get_by_role("button", name=name, exact=True).click()
        clicks += 1

    click("New room")
    page.locator("#frame-name", has_text=SEED_MARK).wait_for()
    page.locator("#depth-reading .facts").wait_for()
    film.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert page.locator("#question").input_value(), "a question about this room is there already"
    click("Ask")
    assert answered(page)
    assert page.locator(".truth").is_visible()
    film.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    click("Compare all methods")
    page.locator("#compare-table tbody tr").nth(9).wait_for()
    page.locator("#cancel-compare").wait_for(state="hidden")
    page.locator("#compare").scroll_into_view_if_needed()
    film.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    click("Show the groups")
    page.locator("#merge-stage").wait_for()
    page.locator("#merge").scroll_into_view_if_needed()
    film.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    assert clicks == 5
    strip(film, "playground-newcomer")


def test_pictures_of_the_documentation(open_page: Open) -> None:
    page = open_page()
    first_room(page)
    page.get_by_role("button", name="Ask", exact=True).click()
    answered(page)
    save(page, "playground-ask")
    page.get_by_role("button", name="Show the groups").click()
    page.locator("#merge-stage").wait_for()
    page.locator("#merge").scroll_into_view_if_needed()
    box = page.locator("#canvas-a").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.75)
    page.locator("#patch-shown", has_text="column").wait_for()
    save(page.locator("#merge"), "playground-groups")
    page.get_by_role("button", name="Compare all methods").click()
    page.locator("#compare-table tbody tr").nth(9).wait_for()
    page.locator("#cancel-compare").wait_for(state="hidden")
    save(page.locator("#compare"), "playground-compare")
    page.get_by_role("button", name="Lift into 3D").click()
    page.locator("#space-stage").wait_for()
    page.wait_for_timeout(500)  # two frames of the drawing
    save(page.locator("#three"), "playground-3d", 900)


def test_the_page_fits_a_phone_in_the_dark(open_page: Open) -> None:
    page = open_page(PHONE, "dark", has_touch=True, is_mobile=True)
    first_room(page)
    page.get_by_role("button", name="Ask", exact=True).tap()
    answered(page)
    page.get_by_role("button", name="Show the groups").tap()
    page.locator("#merge-stage").wait_for()
    page.locator("#canvas-a").tap(position={"x": 40, "y": 60})
    page.locator("#patch-shown", has_text="column").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    page.evaluate("window.scrollTo(0, 0)")
    save(page, "playground-phone", 390)


def test_a_walk_is_seen(open_page: Open, tmp_path: Path) -> None:
    """A walk through synthetic rooms, which the embedded model has learned to ask about."""
    write_walk(WALK, tmp_path, frames=8)
    page = open_page()
    first_room(page)
    page.locator("#question").fill("What color is the cylinder?")
    page.locator("#live > summary").click()
    page.locator("#live[data-started]").wait_for()
    page.locator("#episode-files").set_input_files(tmp_path)
    page.locator("#live-list > *").nth(7).wait_for()
    page.locator("#live-stop").wait_for(state="hidden")
    page.get_by_role("button", name="Ask about the walk").click()
    page.locator("#walk-asked", has_text="of 8 frames read").wait_for()
    page.get_by_role("button", name="next token").click()
    page.locator("#walk-token canvas").wait_for()
    page.locator("#walk").scroll_into_view_if_needed()
    save(page.locator("#walk-box"), "playground-walk")
    page.locator("#live").scroll_into_view_if_needed()
    save(page.locator("#live"), "playground-live")
