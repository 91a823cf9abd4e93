"""Tables of what an episode costs, and the bars it is held to."""

from __future__ import annotations

from typing import Any

from bench.tables.markdown import load, of_machine, table
from evals.environment import environment_line

MEMORY_RATIO, SENT_RATIO, PUSH_RATIO = 1.3, 10.0, 1.2
"""Most of one frame's time to first token; least share of frames sent anew; most of encoding."""
ONE, MANY, SENT = "memory of 1 frame", "memory of 32 frames", "32 frames sent"

Run = dict[str, Any]


def episodes(part: str) -> str:
    """One table: first tokens, pushes, bars or long walks."""
    return {"first": _first, "push": _push, "bars": _bars, "long": _long}[part](load("episodes"))


def _first(result: Run) -> str:
    ways = result["first_token"]["ways"]
    base = ways[ONE]["median_ms"]
    rows = [[name, _range(spread), f"{spread['median_ms'] / base:.2f}"] for name, spread in ways.items()]
    heads = ["question to", "ms to the first token (range)", "of a memory of 1 frame"]
    rounds = result["first_token"]["rounds"]
    return f"{table(heads, rows)}\n\nMedian of {rounds} interleaved rounds. {_signed(result)}"


def _push(result: Run) -> str:
    rows = []
    for method in ("cover", "seen"):
        own = result["push"][method]
        names = ("encoding", "push", "push without the encoder")
        rows.append([f"`{method}`", *(_range(own[name]) for name in names), f"{own['ratio']:.2f}"])
    heads = ["", "encoding, ms", "push, ms", "push without the encoder, ms", "push / encoding"]
    return (
        f"{table(heads, rows)}\n\nMedian (range) of {result['push']['rounds']} frames that were never seen."
    )


def _bars(result: Run) -> str:
    ways, push = result["first_token"]["ways"], result["push"]
    memory = ways[MANY]["median_ms"] / ways[ONE]["median_ms"]
    sent = ways[SENT]["median_ms"] / ways[MANY]["median_ms"]
    rows = [
        _bar("first token: 32 frames in memory / 1 frame", memory, MEMORY_RATIO, memory <= MEMORY_RATIO),
        _bar("first token: 32 frames sent / in memory", sent, SENT_RATIO, sent >= SENT_RATIO, "at least"),
    ]
    for method in ("cover", "seen"):
        ratio = push[method]["ratio"]
        rows.append(_bar(f"`{method}`: push / encoding", ratio, PUSH_RATIO, ratio <= PUSH_RATIO))
    return table(["", "measured", "bar", ""], rows)


def _bar(name: str, value: float, limit: float, is_held: bool, side: str = "at most") -> list[str]:
    return [name, f"{value:.2f}", f"{side} {limit:g}", "held" if is_held else "missed"]


def _long(result: Run) -> str:
    rows = []
    for walk in result["long_walks"]:
        where = "one room" if not walk["step_m"] else "never back"
        for block in (walk["blocks"][0], walk["blocks"][len(walk["blocks"]) // 2 - 1], walk["blocks"][-1]):
            rows.append(
                [
                    f"`{walk['method']}`, {where}",
                    f"{block['frames']:,}",
                    _short(block["push"]),
                    _short(block["first_token"]),
                    f"{block['tokens']:,}",
                    f"{block['frames_with_tokens']:,}",
                    f"{block['episode_mib']:.1f}",
                    f"{block['rss_mib']:.0f}",
                ]
            )
    heads = [
        "",
        "frames",
        "push, ms",
        "first token, ms",
        "tokens held",
        "frames with tokens",
        "episode, MiB",
        "process, MiB",
    ]
    return table(heads, rows)


def _range(spread: Run) -> str:
    return f"{spread['median_ms']:.1f} ({spread['lowest_ms']:.1f} to {spread['highest_ms']:.1f})"


def _short(spread: Run) -> str:
    return f"{spread['median_ms']:.1f} ({spread['p95_ms']:.1f})"


def _signed(result: Run) -> str:
    return f"{result['work']['model']}, {of_machine(result)}. {environment_line(result)}."
