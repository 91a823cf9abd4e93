"""Episodes on the page: a folder of frames with poses is walked through, shown in 3D, and asked."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.loopback import wait_for
from tests.page.conftest import DESK, PHONE, Open, first_room
from tests.page.test_page import violations
from tests.service.episodes import INTRINSICS, walk
from tests.service.live import Live

if TYPE_CHECKING:
    from playwright.sync_api import Page

FRAMES = 5


def folder(place: Path, layout: str) -> Path:
    """Write a walk as a folder."""
    fx, fy, cx, cy = (INTRINSICS[name] for name in ("fx", "fy", "cx", "cy"))
    matrix = f"{fx} 0 {cx} 0\n0 {fy} {cy} 0\n0 0 1 0\n0 0 0 1\n"
    names = {
        "openeqa": ("{0}-rgb.png", "{0}-depth.png", "{0}.txt", "intrinsic_color.txt"),
        "scannet": ("color/{0}.png", "depth/{0}.png", "pose/{0}.txt", "intrinsic/intrinsic_color.txt"),
    }[layout]
    files = {names[3]: matrix.encode()}
    for at, (image, depth, pose) in enumerate(walk(12)[:FRAMES]):
        rows = "\n".join(" ".join(map(str, row)) for row in pose)
        for name, data in zip(names, (image, depth, rows.encode()), strict=False):
            files[name.format(at)] = data
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def chosen(page: Page, place: Path) -> None:
    """Choose a folder as an episode, and wait until its last frame is asked about."""
    page.locator("#live > summary").click()
    page.locator("#live[data-started]").wait_for()
    page.locator("#episode-files").set_input_files(place)
    page.locator("#live-stop").wait_for(state="hidden")


def known(served: Live) -> set[str]:
    return set(served.client.get("/episodes").json()["episodes"])


@pytest.mark.parametrize("layout", ["openeqa", "scannet"])
def test_an_episode_is_walked_through_and_shown(
    page: Page, served: Live, tmp_path: Path, layout: str
) -> None:
    before = known(served)
    chosen(page, folder(tmp_path, layout))
    assert page.locator("#live-list li").count() == FRAMES
    assert page.locator("#live-plot svg").is_visible()
    facts = page.locator("#walk-facts").inner_text()
    assert facts.startswith(f"{FRAMES} cameras") and not facts.startswith(f"{FRAMES} cameras, 0 tokens")
    sent = page.evaluate("() => window.sent.filter((form) => form.pose)")
    assert [len(form["pose"].split(",")) for form in sent] == [16] * FRAMES
    (id_,) = known(served) - before
    state = served.client.get(f"/episodes/{id_}?places=true").json()
    assert state["fields"]["convention"] == "scannet"
    assert state["fields"]["intrinsics"] == pytest.approx(INTRINSICS)
    assert f"{sum(one['place'] is not None for one in state['walk']['tokens'])} tokens in" in facts
    chosen_again = page.locator("#live-list li").count()
    page.locator("#episode-files").set_input_files(folder(tmp_path, layout))
    wait_for(lambda: page.locator("#live-list li").count() < chosen_again)
    page.locator("#live-stop").wait_for(state="hidden")
    (other,) = known(served) - before
    assert other != id_, "the first episode is gone"
    page.goto("about:blank")
    wait_for(lambda: other not in known(served))


def test_tokens_tell_their_frames_and_what_the_answer_read(page: Page, served: Live, tmp_path: Path) -> None:
    chosen(page, folder(tmp_path, "openeqa"))
    page.locator("#walk-token", has_text="Point at a dot").wait_for()
    page.get_by_role("button", name="next token").click()
    first = page.locator("#walk-token", has_text="number 1 of").inner_text()
    assert re.search(r"Token of frames? \d.* at .* m, [\d.]+ % of the attention", first)
    assert page.locator("#walk-token canvas").first.get_attribute("aria-label")
    page.get_by_role("button", name="next token").click()
    second = page.locator("#walk-token", has_text="number 2 of").inner_text()
    shares = [float(re.search(r"([\d.]+) % of the attention", text).group(1)) for text in (first, second)]  # type: ignore[union-attr]
    assert shares[0] >= shares[1] > 0
    page.get_by_role("button", name="previous token").click()
    page.locator("#walk-token", has_text="number 1 of").wait_for()
    canvas = page.locator("#walk")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    found = False
    for row in range(2, 18):
        for column in range(2, 28):
            page.mouse.move(box["x"] + box["width"] * column / 30, box["y"] + box["height"] * row / 20)
            found = page.locator("#walk-token strong").count() > 0
            if found and "number 1 of" not in page.locator("#walk-token").inner_text():
                break
        else:
            continue
        break
    assert found, "the pointer lights a token up"
    before = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
    assert len(before.getcolors(1_000_000) or ()) > 50
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert Image.open(io.BytesIO(canvas.screenshot())).convert("RGB").tobytes() != before.tobytes()
    page.locator("#question").fill("Is there a door?")
    with page.expect_request("**/vqa") as asked:
        page.get_by_role("button", name="Ask about the walk").click()
    sent = asked.value.post_data_json
    assert sent is not None and sent["question"] == "Is there a door?" and sent["places"]
    page.locator("#walk-asked", has_text="visual tokens of 5 frames read").wait_for()


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "dark"), (PHONE, "light")])
def test_axe_finds_nothing_in_a_walk(open_page: Open, tmp_path: Path, size: Any, scheme: str) -> None:
    page = open_page(size, scheme)
    first_room(page)
    chosen(page, folder(tmp_path, "openeqa"))
    page.evaluate("() => { for (const box of document.querySelectorAll('details')) box.open = true; }")
    page.get_by_role("button", name="next token").click()
    page.locator("#walk-token", has_text="number 1 of").wait_for()
    page.locator("#walk-colour").select_option("picture")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_a_folder_without_poses_says_what_is_missing(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    first_room(page)
    for path in folder(tmp_path, "openeqa").glob("*.txt"):
        path.unlink()
    chosen(page, tmp_path)
    page.locator("#live-problem .failure", has_text="a text file of 16 numbers with its name").wait_for()
    assert page.locator("#walk-box").is_hidden()


def test_a_walk_goes_on_after_the_episode_was_lost(open_page: Open, served: Live, tmp_path: Path) -> None:
    page = open_page(expected=("Failed to load resource",))
    first_room(page)
    chosen(page, folder(tmp_path, "openeqa"))
    for id_ in known(served):
        served.client.delete(f"/episodes/{id_}")
    page.get_by_role("button", name="Ask about the walk").click()
    page.locator("#walk-progress .failure", has_text="choose the folder again").wait_for()
    assert page.locator("#walk").is_visible(), "what was known is still shown"
