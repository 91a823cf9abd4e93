"""The table of a comparison under conditions: accuracy in each of them, and differences over all together."""

from __future__ import annotations

from bench.tables.markdown import load as result_of
from bench.tables.markdown import of_model, percent, signed_with_ends, table


def conditions() -> str:
    """Accuracy by setting and condition; over all, minus ToMe, no merging and another frame's depth."""
    result = result_of("conditions")
    found = {
        label: {row["name"]: row["accuracy"]["overall"][0] for row in rows}
        for label, rows in result["conditions"].items()
    }
    heads = ["setting", *found, "all together", "minus ToMe", "minus none", "minus other depth"]
    rows = []
    for row in result["together"]:
        accuracies = [percent(each[row["name"]]) for each in found.values()]
        differences = [row[f"minus_{other}"] for other in ("tome", "none", "control")]
        cells = ["" if each is None else signed_with_ends(each) for each in differences]
        rows.append([row["name"], *accuracies, percent(row["accuracy"][0]), *cells])
    split = result["split"]
    asked = f"{split['questions']} questions about {split['frames']} frames of the {split['name']} split"
    return f"{table(heads, rows)}\n\nPercent; 95 % intervals over frames. {asked}, {of_model(result)}."
