"""A service with `room-tiny`, Debian's Chromium, and the playground in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.loopback import PATIENCE_S
from tests.needs import skip_without
from tests.service.browser import chromium, is_elsewhere
from tests.service.live import Live, live

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

MODEL = "room-tiny"
SETTINGS: dict[str, Any] = {
    "depth_model": "room-depth-tiny",
    "max_body_mib": 16,
    "max_batch": 8,
    "max_queue": 16,
}
FAKES = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
"""A camera that shows a moving picture, and WebGL without a graphics card."""
DESK, PHONE = (1360, 900), (390, 844)
AXE = (Path(__file__).parent / "axe_core" / "axe.min.js").read_text()
SPY = """
window.sent = [];
const fetched = window.fetch;
window.fetch = (url, options) => {
  if (options?.body instanceof FormData) {
    window.sent.push(Object.fromEntries([...options.body].map(([name, one]) => [name, one.name ?? one])));
  }
  return fetched(url, options);
};
"""
"""Notes the forms that the page sends, which a browser does not tell where files are in them."""
Open = Callable[..., "Page"]


@pytest.fixture(scope="session", autouse=True)
def wanted() -> None:
    for name in ("page tests", "chromium", "playwright"):
        skip_without(name)


@pytest.fixture(scope="session")
def browser(wanted: None) -> Iterator[Browser]:
    with chromium(*FAKES) as browser:
        yield browser


@pytest.fixture(scope="session")
def served(wanted: None) -> Iterator[Live]:
    with live(MODEL, **SETTINGS) as served:
        yield served


@contextmanager
def opened(
    browser: Browser,
    port: int,
    size: tuple[int, int] = DESK,
    scheme: Any = "light",
    expected: tuple[str, ...] = (),
    prepare: Callable[[BrowserContext, Page], None] | None = None,
    **more: Any,
) -> Iterator[Page]:
    """Open the playground; it must ask no other machine, break no policy, and complain of nothing.

    expected: parts of complaints that the test causes. prepare: called before the page is loaded.
    """
    seen: list[str] = []
    viewport: Any = {"width": size[0], "height": size[1]}
    with browser.new_context(
        viewport=viewport, color_scheme=scheme, accept_downloads=True, **more
    ) as context:
        context.set_default_timeout(1000 * PATIENCE_S)
        context.add_init_script(AXE)
        context.add_init_script(SPY)
        page = context.new_page()
        page.on("console", lambda one: seen.append(one.text) if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on(
            "request", lambda one: seen.append(f"elsewhere: {one.url}") if is_elsewhere(one.url) else None
        )
        if prepare is not None:
            prepare(context, page)
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
    complaints = [text for text in seen if not any(part in text for part in expected)]
    assert complaints == []


@pytest.fixture
def open_page(browser: Browser, served: Live) -> Iterator[Open]:
    """A function that opens the playground; what it opened is closed and judged at the end."""
    with ExitStack() as stack:
        yield lambda *args, **more: stack.enter_context(opened(browser, served.port, *args, **more))


@pytest.fixture
def page(open_page: Open) -> Page:
    """The playground on a desk, with its first room."""
    page = open_page()
    first_room(page)
    return page


def first_room(page: Page) -> None:
    """Wait until the page shows its first room, and how its depth was read."""
    page.locator("#depth-figure").wait_for()
    page.locator("#method option[value=tosa]").wait_for(state="attached")


def last_sent(page: Page) -> dict[str, str]:
    """Return the last form that the page sent; files by their names."""
    return page.evaluate("() => window.sent.at(-1)")


def answered(page: Page) -> str:
    """Wait for an answer and return it."""
    page.locator("#answer .stages").wait_for()
    return page.locator("#answer .answer-text").inner_text()
