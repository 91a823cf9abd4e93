"""Tables of the ablations on RoomQA: one thing changed at a time, and where depth comes from."""

from __future__ import annotations

from bench.tables.compared import Row, by_name, by_type, difference, is_at, result, signed
from bench.tables.markdown import percent, table, with_ends


def ablations(part: str) -> str:
    """One thing changed at a time: of ToSA its `settings` or its source of `depth`, or of the `others`."""
    heads = ["keep_ratio", "what", "is", "accuracy", "minus shipped", "minus its control", "purity"]
    rows = [_line(one, part) for one in result()["ablations"] if part in _parts(one)]
    return signed(table(heads, rows))


def depth_types(keep_ratio: str) -> str:
    """Accuracy by type of question for every source of depth at one ratio, beside ToMe and no merging."""
    rows = [
        row
        for row in result()["settings"]
        if is_at(row, keep_ratio) and row["method"] in ("none", "tosa", "tome")
        if row["schedule"] == "constant" and not row["changed"]
    ]
    return signed(by_type(rows, with_ends))


def _line(one: Row, part: str) -> list[str]:
    row, is_shipped = by_name()[one["setting"]], one["setting"] == one["shipped"]
    what, value = one["factor"], one["value"]
    if is_shipped:
        what, value = ("depth", "true") if part == "depth" else (value, "")
    return [
        f"{one['keep_ratio']:g}",
        f"{one['method']}: {what}" if part == "others" else what,
        value,
        with_ends(row["accuracy"]["overall"]),
        difference(None if is_shipped else one["difference"]),
        difference(one["minus_control"]),
        percent(row["purity"][0]),
    ]


def _parts(one: Row) -> tuple[str, ...]:
    """Return the tables that list an ablation; ToSA as shipped is in both of its own."""
    if one["method"] != "tosa":
        return ("others",)
    return {"nothing": ("settings", "depth"), "depth": ("depth",)}.get(one["factor"], ("settings",))
