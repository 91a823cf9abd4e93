"""The table of a comparison under conditions: accuracy in each of them, and differences over all together."""

from __future__ import annotations

from typing import Any

from bench.tables.markdown import load as result_of
from bench.tables.markdown import of_model, percent, signed_with_ends, table


def conditions() -> str:
    """Accuracy by setting and condition, in percent."""
    result = result_of("conditions")
    found = {
        label: {row["name"]: row["accuracy"]["overall"][0] for row in rows}
        for label, rows in result["conditions"].items()
    }
    names = [row["name"] for row in result["together"]]
    rows = [[label, *(percent(each[name]) for name in names)] for label, each in found.items()]
    rows.append(["all together", *(percent(row["accuracy"][0]) for row in result["together"])])
    return f"{table(['picture', *names], rows)}\n\n{_said(result)}"


def differences() -> str:
    """Minus ToMe, no merging and another frame's depth: over all conditions, and over the worst third."""
    result = result_of("conditions")
    worst = ", ".join(result["worst_third"]["conditions"])
    parts = {"all": result["together"], "worst": result["worst_third"]["together"]}
    parts |= {label: rows for label, rows in result["alone"].items() if label == "clean"}
    heads = ["pictures", "setting", "right", "minus ToMe", "minus none", "minus other depth"]
    rows = []
    for part, described in parts.items():
        for row in described:
            values = [row[f"minus_{other}"] for other in ("tome", "none", "control")]
            cells = ["" if each is None else signed_with_ends(each) for each in values]
            rows.append([part, row["name"], percent(row["accuracy"][0]), *cells])
    return f"{table(heads, rows)}\n\nworst: {worst}. {_said(result)}"


def _said(result: dict[str, Any]) -> str:
    split = result["split"]
    asked = f"{split['questions']} questions about {split['frames']} frames of the {split['name']} split"
    return f"Percent; 95 % intervals over frames. {asked} under each condition, {of_model(result)}."
