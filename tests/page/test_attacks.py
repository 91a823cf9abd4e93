"""Fifty strings of attack in everything that the server can say: all are shown as text, none is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.conftest import Open, first_room
from tests.page.test_walk import chosen, folder
from tests.service.attacks import ATTACKS

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

LOADING = (
    *("script", "img", "iframe", "object", "embed", "base", "link", "meta", "style", "form", "template"),
    *("video", "audio", "svg script", "math", "marquee", "[onload],[onerror],[onfocus],[ontoggle]"),
)
BLOCKED = ("Failed to load resource",)


def elements(page: Page) -> dict[str, int]:
    """Count what an attack would add: elements that load or run something, or take part in a form."""
    return page.evaluate(
        "(names) => Object.fromEntries(names.map((name) => [name, document.querySelectorAll(name).length]))",
        list(LOADING),
    )


def unharmed(page: Page, before: dict[str, int]) -> None:
    assert page.evaluate("() => window.attacked") is None
    assert elements(page) == before


def stream(answer: dict[str, Any], text: str) -> str:
    pieces = [
        ("text", {"text": text[:7]}),
        ("text", {"text": text[7:]}),
        ("answer", {**answer, "answer": text}),
    ]
    return "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in pieces)


def every_text(value: Any, attack: str) -> Any:
    """Put an attack in the place of every text of a body."""
    if isinstance(value, dict):
        return {name: every_text(one, attack) for name, one in value.items()}
    if isinstance(value, list):
        return [every_text(one, attack) for one in value]
    return attack if isinstance(value, str) else value


def test_answers_are_text(page: Page) -> None:
    assert len(set(ATTACKS)) == 50
    answer = {
        "merge": {"method": "x", "tokens_in": 4, "tokens_out": 2, "vit_flops_ratio": 0.5},
        "timings_ms": {"vision": 1.0, "total": 2.0},
        "usage": {"prompt_tokens": 1},
        "confidence": 0.5,
        "finish_reason": "length",
        "depth": {"source": "estimate", "estimator": {"id": "x"}},
        "model": {"id": "x"},
        "cached": False,
        "batch_size": 1,
    }
    before, sent = elements(page), {"now": ""}

    def fulfil(route: Route) -> None:
        body = stream(
            {**answer, "model": {"id": sent["now"]}, "depth": every_text(answer["depth"], sent["now"])},
            sent["now"],
        )
        route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/vqa", fulfil)
    for attack in ATTACKS:
        sent["now"] = attack
        page.locator("#question").fill(attack)
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator("#answer .stages").wait_for()
        shown = page.locator("#answer .answer-text")
        assert shown.evaluate("(node) => node.textContent") == attack
        assert shown.evaluate("(node) => node.children.length") == 0
    unharmed(page, before)


@pytest.mark.parametrize("address", ["vqa", "vqa/compare", "vqa/overlay", "rooms", "depth/inspect"])
def test_errors_are_text(open_page: Open, address: str) -> None:
    page = open_page(expected=BLOCKED)
    first_room(page)
    before, sent = elements(page), {"now": ""}
    page.route(
        f"**/{address}",
        lambda route: route.fulfill(
            status=422,
            json={
                "error": {
                    "code": sent["now"],
                    "message": sent["now"],
                    "field": sent["now"],
                    "choices": [sent["now"]],
                    "request_id": sent["now"],
                }
            },
        ),
    )
    button = {
        "vqa": "Ask",
        "vqa/compare": "Compare all methods",
        "vqa/overlay": "Show the groups",
        "rooms": "New room",
        "depth/inspect": "tum",
    }[address]
    for attack in ATTACKS[::5]:
        sent["now"] = attack
        page.get_by_role("button", name=button, exact=True).click()
        page.locator(".failure .what").first.wait_for()
        assert page.locator(".failure .what").first.evaluate("(node) => node.children.length") == 0
    unharmed(page, before)


def test_everything_else_that_is_said_is_text(open_page: Open) -> None:
    """Titles and help of methods, questions of rooms, doubts about depth, compared answers."""
    sent = {"now": ATTACKS[1]}

    def replaced(route: Route) -> None:
        body = route.fetch().json()
        for method in body.get("methods", []):
            method.update(title=sent["now"], paper=sent["now"])
            for option in method["options"]:
                option.update(description=sent["now"], default=sent["now"])
        for name in ("questions", "notes", "guessed"):
            body[name] = [every_text(one, sent["now"]) for one in body.get(name, [])] or [
                {"sentence": sent["now"]}
            ]
        for result in body.get("results", []):
            result.update(answer=sent["now"])
            result["merge"]["method"] = sent["now"]
        if "views" in body:
            body["merge"]["method"] = sent["now"]
        route.fulfill(json=body)

    def prepare(_: Any, page: Page) -> None:
        for address in ("methods", "rooms", "depth/inspect", "vqa/compare", "vqa/overlay"):
            page.route(f"**/{address}", replaced)

    page = open_page(prepare=prepare)
    first_room(page)
    before = elements(page)
    for attack in ATTACKS[1::7]:
        sent["now"] = attack
        page.get_by_role("button", name="New room").click()
        page.locator("#cancel-room").wait_for(state="hidden")
        page.locator("#suggestions button").first.wait_for()
        page.get_by_role("button", name="Show the groups").click()
        page.locator("#merge-stage").wait_for()
        page.locator("#cancel-groups").wait_for(state="hidden")
    page.get_by_role("button", name="Compare all methods").click()
    page.locator("#compare-table tbody tr").nth(9).wait_for()
    page.locator("#advanced > summary").click()
    page.locator("#method").select_option("pitome")
    unharmed(page, before)


def test_what_is_said_of_an_episode_is_text(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    first_room(page)
    before, sent = elements(page), {"now": ""}

    def answered(route: Route) -> None:
        body = route.fetch().json()
        route.fulfill(json={**body, "answer": sent["now"]})

    page.route("**/episodes/*/vqa", answered)
    chosen(page, folder(tmp_path, "openeqa"))
    for attack in ATTACKS[::7]:
        sent["now"] = attack
        page.get_by_role("button", name="Ask about the walk").click()
        page.locator("#walk-progress .progress").wait_for(state="detached")
        shown = page.locator("#walk-answer")
        assert shown.evaluate("(node) => node.textContent") == attack
        assert shown.evaluate("(node) => node.children.length") == 0
    unharmed(page, {**before, "form": elements(page)["form"]})


def test_the_policy_would_stop_what_the_page_lets_through(open_page: Open) -> None:
    """Both walls are there: even code that takes text for HTML is refused by the browser."""
    page = open_page(expected=("Trusted", "Content Security Policy", "executed"))
    first_room(page)
    with pytest.raises(Exception, match="TrustedHTML"):
        page.evaluate("(text) => { document.body.innerHTML = text; }", ATTACKS[1])
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.append("window.attacked=1");
            document.body.append(script);
        }"""
    )
    assert page.evaluate("() => window.attacked") is None
    assert (
        page.evaluate("() => fetch('https://evil.example/').then(() => 'sent', () => 'refused')") == "refused"
    )
