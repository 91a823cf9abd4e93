"""Debian's Chromium, driven by Playwright; it may reach this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.loopback import PATIENCE_S
from tests.needs import program

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ALONE = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--no-sandbox")
"""No name but these is found; root, as CI is, cannot have Chromium's sandbox."""


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """Run a browser, with more arguments."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=[*ALONE, *more])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Browser, seen: list[str], pictures: Path | None = None) -> Iterator[Page]:
    """Open a page; `seen` gets what it complains of, and addresses that it asks on other machines."""
    with browser.new_context(viewport={"width": 1280, "height": 1600}) as context:
        context.set_default_timeout(1000 * PATIENCE_S)
        page = context.new_page()
        page.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("request", lambda request: seen.append(request.url) if is_elsewhere(request.url) else None)
        yield page


def is_elsewhere(url: str) -> bool:
    """Say whether an address is on another machine."""
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost")
