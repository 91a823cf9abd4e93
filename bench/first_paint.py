"""Measure how soon the playground shows something, in Debian's Chromium against a service of this machine.

python -m bench.first_paint --rounds 9: every round is a browser context of its own, so nothing is cached. The
first paint holds the heading, the buttons and the question; the frame comes with the first room.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from bench.containers.engine import program
from evals.machine import write_result
from examples.demo import server
from service.api.playground import assets

RESULT = Path(__file__).parent / "results" / "first_paint.json"
SIZES = {"desktop": (1360, 900), "phone": (390, 844)}
BAR_MS, BAR_BYTES = 1000, 1_000_000
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
DRAWN = """() => !document.querySelector("#depth-figure").hidden && performance.now()"""


def once(browser: Browser, address: str, size: tuple[int, int]) -> Mapping[str, float]:
    """Open the page in a new context; return milliseconds since its address was asked for."""
    with browser.new_context(viewport={"width": size[0], "height": size[1]}) as context:
        page = context.new_page()
        page.goto(address)
        paint_ms = page.wait_for_function(PAINTED).json_value()
        return {"paint_ms": paint_ms, "room_ms": page.wait_for_function(DRAWN).json_value()}


def measured(rounds: int) -> list[dict[str, Any]]:
    """Open the page so often at every size, after once that does not count."""
    runs = []
    with server() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        for name, size in SIZES.items():
            times = [once(browser, address, size) for _ in range(rounds + 1)][1:]
            runs.append({"size": name, "rounds": rounds, **_spread(times)})
        browser.close()
    return runs


def page_bytes() -> int:
    """Return the size of all files of the page as they are sent, without the page itself."""
    return sum(len(held.gzipped) for held in assets().values())


def _spread(times: list[Mapping[str, float]]) -> dict[str, Any]:
    return {
        name: {
            "median": round(statistics.median(one[name] for one in times), 1),
            "most": round(max(one[name] for one in times), 1),
        }
        for name in ("paint_ms", "room_ms")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    bars = {"paint_ms": BAR_MS, "bytes": BAR_BYTES}
    write_result(RESULT, {"runs": measured(rounds), "bytes": page_bytes(), "bars": bars})


if __name__ == "__main__":
    main()
