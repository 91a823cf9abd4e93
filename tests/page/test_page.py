"""The playground in Chromium: nothing leaves, everything can be reached, and failures lose nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.loopback import free_port, wait_for
from tests.page.conftest import DESK, MODEL, PHONE, SETTINGS, Open, answered, first_room, last_sent, opened
from tests.service.live import Live, live
from tosa import METHODS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

FRAMES = Path(__file__).parents[2] / "examples" / "frames"
AXE = Path(__file__).parent / "axe_core"
AWAY = ("Failed to load resource", "ERR_CONNECTION_REFUSED", "net::ERR")


def ask(page: Page) -> str:
    page.get_by_role("button", name="Ask", exact=True).click()
    return answered(page)


def violations(page: Page) -> list[str]:
    """Let axe-core judge the page as it is; return what is wrong, with the elements."""
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found]


def everything(page: Page) -> None:
    """Open and fill all parts of the page."""
    ask(page)
    page.get_by_role("button", name="Show the groups").click()
    page.locator("#merge-stage").wait_for()
    page.get_by_role("button", name="Compare all methods").click()
    page.locator("#compare-table tbody tr").nth(9).wait_for()
    page.locator("#cancel-compare").wait_for(state="hidden")
    page.get_by_role("button", name="Lift into 3D").click()
    page.locator("#space-stage").wait_for()
    page.locator("#method").select_option("cubist")
    page.evaluate("() => { for (const box of document.querySelectorAll('details')) box.open = true; }")
    page.locator("#field-schedule-help", has_text="inflection").wait_for()


def test_axe_is_the_one_of_its_package() -> None:
    for line in (AXE / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((AXE / name).read_bytes()).hexdigest() == digest, name
    assert f"v{(AXE / 'VERSION').read_text().strip()}" in (AXE / "axe.min.js").read_text()[:400]


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_axe_finds_nothing(open_page: Open, size: tuple[int, int], scheme: str) -> None:
    page = open_page(size, scheme)
    first_room(page)
    assert violations(page) == []
    everything(page)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    page.evaluate("() => document.querySelector('#ask-button').replaceChildren()")
    assert any("button-name" in one for one in violations(page)), "axe would have said so"


def test_the_keyboard_reaches_everything(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen: list[str] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if page.evaluate("document.activeElement === document.body"):
            break
    wanted = [
        "new-room",
        "bundled",
        "open-files",
        "webcam",
        "question",
        "method",
        "keep-ratio",
        "views",
        "ask-button",
    ]
    wanted += ["show-groups", "method-b", "compare-button", "show-space"]
    assert [name for name in seen if name in wanted] == wanted, "in the order in which they stand"


def test_a_question_by_keyboard_alone(page: Page) -> None:
    page.locator("#question").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("What is on the left?")
    page.keyboard.press("Enter")
    assert answered(page)
    page.locator("#show-groups").focus()
    page.keyboard.press("Enter")
    page.locator("#merge-stage").wait_for()
    page.locator("#layer").focus()
    page.keyboard.press("Home")
    assert "before the first layer" in page.locator("#token-counts").inner_text()
    page.keyboard.press("ArrowRight")
    assert "after layer 0" in page.locator("#token-counts").inner_text()
    page.locator("#merge-canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "row 13, column 14" in page.locator("#patch-shown").inner_text()
    page.keyboard.press("Escape")
    assert "Point at a patch" in page.locator("#patch-shown").inner_text()


def test_a_patch_lights_up_its_group_and_the_divider_moves(page: Page) -> None:
    page.get_by_role("button", name="Show the groups").click()
    page.locator("#merge-stage").wait_for()
    page.locator("#merge-canvas").scroll_into_view_if_needed()
    box = page.locator("#merge-canvas").bounding_box()
    assert box is not None
    plain = page.locator("#merge-canvas").screenshot()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    text = page.locator("#patch-shown", has_text="column").inner_text()
    assert text.count("patches") + text.count("alone") == 2 and " m" in text, "both methods, with depth"
    assert page.locator("#merge-canvas").screenshot() != plain
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 40, steps=4)
    page.mouse.up()
    assert float(page.locator("#divider").input_value()) == pytest.approx(0.8, abs=0.05)
    page.locator("#method-b").select_option("")
    page.locator("#canvas-b").wait_for(state="hidden")


def test_settings_reach_the_server_and_help_comes_from_it(page: Page) -> None:
    page.locator("#method").select_option("saint")
    page.locator("#advanced > summary").click()
    assert "cosine similarity" in page.locator("#option-tau-help").inner_text()
    page.locator("#field-schedule-help", has_text="inflection").wait_for()
    page.locator("#option-tau").fill("0.6")
    page.locator("#field-max_new_tokens").fill("1")
    page.locator("#keep-ratio").fill("0.5")
    ask(page)
    sent = last_sent(page)
    assert (sent["method"], sent["options"], sent["keep_ratio"]) == ("saint", '{"tau":0.6}', "0.5")
    assert sent["max_new_tokens"] == "1"
    assert "288 visual tokens" in page.locator("#answer").inner_text()


def test_files_and_presets(open_page: Open, tmp_path: Path) -> None:
    page = open_page(expected=AWAY)
    first_room(page)
    room = FRAMES / "room-3"
    page.locator("#files").set_input_files([room / "rgb.png", room / "depth.png"])
    page.locator("#frame-name", has_text="rgb.png").wait_for()
    page.get_by_role("button", name="tum", exact=True).click()
    page.locator("#depth-reading", has_text="5000 per metre").wait_for()
    page.get_by_role("button", name="leave depth out").click()
    page.locator("#depth-reading", has_text="No depth file").wait_for()
    ask(page)
    assert last_sent(page)["image"] == "rgb.png" and "depth" not in last_sent(page)
    broken = tmp_path / "depth.npy"
    broken.write_bytes(b"no depth")
    page.locator("#files").set_input_files(broken)
    page.locator("#depth-reading .failure").wait_for()
    assert page.locator("#question").input_value(), "nothing else is lost"
    page.locator("#files").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.locator("#frame-problem .failure", has_text="JPEG, PNG or WebP").wait_for()
    assert "rgb.png" in page.locator("#frame-name").inner_text()


DROP = """(names) => {
  const data = new DataTransfer();
  for (const [name, base64, type] of names) {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, { type }));
  }
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    document.querySelector("#drop").dispatchEvent(event);
  }
}"""


def test_a_picture_and_its_depth_are_dropped(page: Page) -> None:
    room = FRAMES / "room-2"
    files = [("view.png", room / "rgb.png", "image/png"), ("view-depth.npy", room / "depth.png", "")]
    metres = io.BytesIO()
    np.save(metres, np.asarray(Image.open(room / "depth.png")).astype(np.float32) / 1000)
    data = {"view.png": (room / "rgb.png").read_bytes(), "view-depth.npy": metres.getvalue()}
    page.evaluate(DROP, [[name, base64.b64encode(data[name]).decode(), kind] for name, _, kind in files])
    page.locator("#frame-name", has_text="view.png").wait_for()
    page.locator("#depth-reading", has_text="npy float32").wait_for()
    ticks = page.locator("#colour-ticks span").all_inner_texts()
    assert all(re.fullmatch(r"\d+\.\d\d m", tick) for tick in ticks) and len(ticks) == 5, "in metres"
    ask(page)
    assert (last_sent(page)["image"], last_sent(page)["depth"]) == ("view.png", "view-depth.npy")


def test_a_room_by_its_seed_and_its_camera(page: Page) -> None:
    page.locator("#frame details > summary").click()
    page.locator("#seed").fill("30000007")
    page.locator("#condition").select_option("dark")
    page.locator("#depth-camera").select_option("stereo")
    page.get_by_role("button", name="Draw this room").click()
    page.locator("#frame-name", has_text="Room 30000007, dark").wait_for()
    page.locator("#suggestions button").nth(1).click()
    chosen = page.locator("#suggestions button").nth(1).inner_text()
    assert page.locator("#question").input_value() == chosen, "picked, and not typed"
    page.locator("#bundled").select_option("10000029")
    page.locator("#frame-name", has_text="Room 10000029").wait_for()


def test_doubts_about_depth_are_shown(page: Page) -> None:
    room = FRAMES / "room-2"
    odd, pixels = io.BytesIO(), np.zeros((60, 60), np.uint16)
    pixels[20:24, 20:60] = np.arange(1500, 2300, 20)  # nearly nothing is valid
    Image.fromarray(pixels).save(odd, "PNG")
    page.locator("#files").set_input_files(
        [
            {"name": "a.png", "mimeType": "image/png", "buffer": (room / "rgb.png").read_bytes()},
            {"name": "a-depth.png", "mimeType": "image/png", "buffer": odd.getvalue()},
        ]
    )
    page.locator("#depth-reading .doubts li", has_text="valid").first.wait_for()
    said = page.locator("#depth-reading .doubts li").all_inner_texts()
    assert any("valid" in one for one in said) and all(len(one) > 20 for one in said)


def test_long_work_says_so_and_can_be_cancelled(page: Page, served: Live) -> None:
    with served.busy():
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator("#ask-progress .clock", has_text=" s").wait_for()
        page.locator("#cancel-ask").click()
        page.locator("#ask-progress", has_text="Cancelled").wait_for()
        wait_for(lambda: served.in_flight == 0)
    assert ask(page)


def test_a_failure_says_what_to_do_and_trying_again_helps(open_page: Open) -> None:
    page = open_page(expected=AWAY)
    first_room(page)
    question = page.locator("#question").input_value()
    body = {
        "error": {
            "code": "overloaded",
            "message": "Too many requests are waiting. Try again later.",
            "request_id": "r-7",
        }
    }
    page.route("**/vqa", lambda route: route.fulfill(status=503, json=body, headers={"Retry-After": "3"}))
    page.get_by_role("button", name="Ask", exact=True).click()
    failure = page.locator("#ask-progress .failure")
    failure.wait_for()
    for said in ("Too many requests", "try again in 3 s", "code overloaded", "request r-7"):
        assert said in failure.inner_text()
    assert page.locator("#question").input_value() == question
    page.unroute("**/vqa")
    failure.get_by_role("button", name="Try again").click()
    assert answered(page)


def test_the_page_survives_a_restart_of_the_server(browser: Browser) -> None:
    port = free_port()
    with ExitStack() as first, ExitStack() as page_stack:
        first.enter_context(live(MODEL, port=port, **SETTINGS))
        page = page_stack.enter_context(opened(browser, port, expected=AWAY))
        first_room(page)
        ask(page)
        page.locator("#question").fill("Is there a door?")
        first.close()
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator("#ask-progress .failure", has_text="Nothing is lost").wait_for()
        page.locator('#status[data-state="no connection"]').wait_for()
        with live(MODEL, port=port, **SETTINGS):
            page.locator('#status[data-state="ready"]').wait_for()
            assert page.locator("#question").input_value() == "Is there a door?"
            page.locator("#ask-progress").get_by_role("button", name="Try again").click()
            assert answered(page)
            page.get_by_role("button", name="Show the groups").click()
            page.locator("#merge-stage").wait_for()
            page.get_by_role("button", name="Lift into 3D").click()
            page.locator("#space-stage").wait_for()


def test_a_key_is_asked_for_and_kept_out_of_code(browser: Browser) -> None:
    with (
        live(MODEL, api_keys="robot=secret-word", **SETTINGS) as served,
        opened(browser, served.port, expected=AWAY) as page,
    ):
        page.locator("#new-room").click()
        page.locator("#frame-problem .failure", has_text="API key").wait_for()
        assert page.evaluate("document.activeElement.id") == "key"
        page.keyboard.type("secret-word")
        page.keyboard.press("Enter")
        first_room(page)
        assert ask(page)
        page.locator("#ask-code > summary").click()
        page.locator("#ask-code code", has_text="curl").wait_for()
        code = page.locator("#ask-code code").inner_text()
        assert "secret-word" not in page.locator("html").inner_html() and "$TOSA_VQA_KEY" in code


def test_a_slow_network_is_bearable(open_page: Open) -> None:
    """On 400 kbit/s with 400 ms of delay, the page is there before its first frame is."""

    def slow(context: BrowserContext, page: Page) -> None:
        session = context.new_cdp_session(page)
        limits = {"offline": False, "latency": 400, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", limits)

    page = open_page(prepare=slow)
    assert page.get_by_role("button", name="New room").is_visible()
    first_room(page)
    assert ask(page)


def test_the_webcam(page: Page) -> None:
    page.get_by_role("button", name="Webcam", exact=True).click()
    page.locator("#take").click()
    page.locator("#frame-name", has_text="webcam").wait_for()
    page.locator("#depth-reading", has_text="No depth file").wait_for()
    page.locator("#question").fill("What colour is it?")
    ask(page)
    assert "estimated by room-depth-tiny" in page.locator("#answer").inner_text()
    page.get_by_role("button", name="Show the groups").click()
    page.locator("#merge-stage").wait_for()
    page.get_by_role("button", name="Lift into 3D").click()
    page.locator("#space-facts", has_text="points").wait_for()


def test_live_from_the_webcam_and_from_a_folder(page: Page, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        room = FRAMES / f"room-{number}"
        for kind in ("rgb", "depth"):
            (tmp_path / f"{number}-{kind}.png").write_bytes((room / f"{kind}.png").read_bytes())
    page.locator("#live > summary").click()
    page.locator("#live[data-started]").wait_for()
    page.locator("#live-pause").select_option("0")
    page.get_by_role("button", name="Ask the webcam").click()
    page.locator("#live-list li").nth(1).wait_for()
    page.locator("#live-stop").click()
    page.locator("#live-video").wait_for(state="hidden")
    page.evaluate("() => { window.sent = []; }")
    page.locator("#live-files").set_input_files(tmp_path)
    page.locator("#live-list li", has_text="3-rgb.png").wait_for()
    page.locator("#live-stop").wait_for(state="hidden")
    assert page.locator("#live-list li").count() == 3 and page.locator("#live-plot svg").is_visible()
    depths = page.evaluate("() => window.sent.map((form) => form.depth)")
    assert depths == ["1-depth.png", "2-depth.png", "3-depth.png"], "each with its depth"


def test_the_cloud_is_drawn_and_turns(page: Page) -> None:
    page.get_by_role("button", name="Lift into 3D").click()
    page.locator("#space-problem", has_text="Show the groups first").wait_for()
    page.get_by_role("button", name="Show the groups").click()
    page.locator("#merge-stage").wait_for()
    page.get_by_role("button", name="Lift into 3D").click()
    page.locator("#space-facts", has_text="points").wait_for()

    def shown() -> Image.Image:
        page.wait_for_timeout(400)
        return Image.open(io.BytesIO(page.locator("#space").screenshot())).convert("RGB").resize((200, 90))

    by_picture = shown()
    assert len(by_picture.getcolors(100_000) or ()) > 500, "many colours: there is more than a background"
    page.locator("#space-colour").select_option("group")
    by_group = shown()
    page.locator("#space").focus()
    page.keyboard.press("ArrowLeft")
    turned = shown()
    assert by_picture.tobytes() != by_group.tobytes() != turned.tobytes()


def test_a_comparison_sorts_and_is_taken_along(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    first_room(page)
    page.get_by_role("button", name="Compare all methods").click()
    page.locator("#compare-table tbody tr").nth(9).wait_for()
    page.locator("#cancel-compare").wait_for(state="hidden")
    page.get_by_role("button", name="Tokens").click()
    assert page.locator('th[data-column="tokens"]').get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="Tokens").click()
    assert page.locator("#compare-table tbody th").first.inner_text() == "none"
    page.get_by_role("button", name="Copy as Markdown").click()
    page.locator("#copied", has_text="Copied").wait_for()
    lines = page.evaluate("navigator.clipboard.readText()").strip().splitlines()
    assert len(lines) == 2 + len(METHODS) and all(line.count(" | ") == 6 for line in lines)
    assert lines[2].startswith("| none ")
    page.get_by_role("button", name="Copy as CSV").click()
    wait_for(lambda: page.evaluate("navigator.clipboard.readText()").startswith("method,answer"))
    assert len(page.evaluate("navigator.clipboard.readText()").strip().splitlines()) == 1 + len(METHODS)


def test_motion_stops_where_it_is_not_wanted(open_page: Open) -> None:
    page = open_page(reduced_motion="reduce")
    first_room(page)
    page.evaluate("() => document.querySelector('#answer').append(document.createElement('span'))")
    page.evaluate("() => { document.querySelector('#answer span').className = 'sweep'; }")
    animation = page.locator(".sweep").evaluate("(node) => getComputedStyle(node).animationName")
    assert animation == "none"
