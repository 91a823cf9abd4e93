"""Tables of the run over the whole test split: the goals of room-tiny, and ToSA against ToMe."""

from __future__ import annotations

from functools import cache
from typing import Any

from bench.tables.compared import difference
from bench.tables.markdown import load, of_model, percent, table, with_ends


@cache
def result() -> dict[str, Any]:
    """Read the run over all 4,000 questions."""
    return load("comparison_4000")


def settings() -> str:
    """Accuracy of every setting, as a share of the unmerged one, of its worst type, and against ToMe."""
    rows = result()["settings"]
    plain = rows[0]["accuracy"]["overall"][0]
    minus_tome = {one["setting"]: one["difference"] for one in result()["tests"]["against tome"]}
    lines = [
        [
            row["name"].removesuffix(", true depth"),
            with_ends(row["accuracy"]["overall"]),
            percent(row["accuracy"]["overall"][0] / plain),
            with_ends(row["accuracy"]["count"]),
            difference(minus_tome.get(row["name"])),
        ]
        for row in rows
    ]
    heads = ["setting", "accuracy", "share of none", "count, its worst type", "minus ToMe, points"]
    split = result()["split"]
    questions = f"{split['questions']} questions about {split['frames']} frames of the test split"
    return f"{table(heads, lines)}\n\nPercent; 95 % intervals. {questions}, {of_model(result())}."
