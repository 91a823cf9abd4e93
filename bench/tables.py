"""Write the tables of the documentation from bench/results/*.json, so that no number is typed by hand.

A document marks the place with `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
DOCUMENTS = ("README.md", "vlm/checkpoints/room-tiny/README.md")
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def main() -> None:
    for path in (ROOT / name for name in DOCUMENTS):
        path.write_text(filled(path.read_text()))


def is_fresh(path: Path) -> bool:
    """Say whether every table of a document is what the results say."""
    text = path.read_text()
    return filled(text) == text


def filled(text: str) -> str:
    """Put the tables in their places."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", text)


def _load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def rooms() -> str:
    """Accuracy by type, a column per setting."""
    result = _load("rooms")
    runs = result["runs"]
    heads = ["type", "blind guess", *(_setting(run) for run in runs)]
    rows = [
        [kind, *(_percent(value) for value in (blind, *(run["accuracy"][kind] for run in runs)))]
        for kind, blind in result["blind_guess"].items()
    ]
    split = result["split"]
    return f"{_markdown(heads, rows)}\n\n{split['questions']} frozen test questions, {_signed(result)}."


def vision_latency() -> str:
    """Vision time by method, beside the ratio of multiply-adds."""
    result = _load("vision_latency")
    heads = ["method", "tokens out", "vision ms (median)", "range", "time against none", "FLOPs against none"]
    rows = [
        [
            _setting(run),
            str(run["tokens_out"]),
            f"{run['median_ms']:.1f}",
            f"{run['fastest_ms']:.1f} to {run['slowest_ms']:.1f}",
            f"{run['time_ratio']:.2f}",
            f"{run['flops_ratio']:.2f}",
        ]
        for run in result["runs"]
    ]
    how = f"Median of {result['rounds']} interleaved rounds, batch 1"
    return f"{_markdown(heads, rows)}\n\n{how}, {_signed(result)}."


TABLES: dict[str, Callable[[], str]] = {"rooms": rooms, "vision_latency": vision_latency}


def _setting(run: dict[str, Any]) -> str:
    return "none" if run["method"] == "none" else f"{run['method']} {run['keep_ratio']:g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(result: dict[str, Any]) -> str:
    machine, model = result["machine"], result["model"]
    return (
        f"model revision {model['revision']}, {machine['processor']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, {result['date'][:10]}"
    )


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
