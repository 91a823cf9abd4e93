"""Tables of the comparison of all methods on RoomQA: accuracy, tests, schedules, latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.tables.compared import (
    Row,
    by_name,
    by_type,
    compared,
    difference,
    is_at,
    method_label,
    result,
    signed,
)
from bench.tables.markdown import of_machine, percent, signed_with_ends, table, with_ends
from evals.environment import environment_line
from evals.rooms.compare.report import seen_ms

NOT_TIMED = "Not timed in this run."


def headline() -> str:
    """The README's number: time and accuracy of an answer with ToSA at a quarter of the tokens."""
    plain, merged = by_name()["none"], by_name()["tosa 0.25 decreasing, true depth"]
    timed, split = result()["latency"], result()["split"]
    total_ms = merged["total_ms"] + timed["depth_ms"][merged["depth"]]
    vision_ms = seen_ms(merged, timed["depth_ms"])
    right, right_plain = (percent(row["accuracy"]["overall"][0]) for row in (merged, plain))
    return (
        f"**With {merged['tokens_out']} of {plain['tokens_out']} visual tokens, an answer takes "
        f"{total_ms:.0f} ms instead of {plain['total_ms']:.0f} ms**, of which the vision encoder takes "
        f"{vision_ms:.0f} ms instead of {plain['vision_ms']:.0f} ms. Of {split['questions']:,} questions, "
        f"**{right} % are answered correctly; without merging, {right_plain} %** "
        f"(95 % intervals {_ends(merged)} and {_ends(plain)}).\n\n"
        f"Model `room-tiny`, method `tosa`, schedule `decreasing`, depth included, medians of "
        f"{timed['rounds']} rounds in one process, {of_machine(result())}."
    )


def _ends(row: Row) -> str:
    _, low, high = map(percent, row["accuracy"]["overall"])
    return f"{low} to {high}"


def accuracy(schedule: str) -> str:
    """Methods by ratio, each cell with its interval."""
    return signed(_by_ratio(schedule, lambda row: with_ends(row["accuracy"]["overall"])))


def purity(schedule: str) -> str:
    """Methods by ratio: the purity of their groups of patches."""
    return _by_ratio(schedule, lambda row: percent(row["purity"][0]))


def types(keep_ratio: str) -> str:
    """Accuracy by type of question, a column per method, at one ratio and the constant schedule."""
    return by_type(_constant(keep_ratio), with_ends)


def types_short() -> str:
    """Accuracy by type of question, of no merging, ToMe and ToSA only, without intervals."""
    chosen = [
        row for keep in ("0.5", "0.25", "0.1") for row in _constant(keep) if row["depth"] != "estimated"
    ]
    chosen = [row for row in chosen if row["method"] in ("none", "tome", "tosa")]
    once = list({row["name"]: row for row in chosen}.values())
    return signed(by_type(once, lambda values: percent(values[0])))


def methods(keep_ratio: str) -> str:
    """Every method at one ratio and the constant schedule, with its cost."""
    heads = [
        "method",
        "tokens out",
        "FLOPs",
        "accuracy",
        "vision, times as fast",
        "whole answer, times as fast",
    ]
    lines = [
        [
            method_label(row),
            str(row["tokens_out"]),
            f"{row['vit_flops_ratio']:.2f}",
            with_ends(row["accuracy"]["overall"]),
            *(f"{row[key]:.2f}" if key in row else "" for key in ("vision_speed_up", "total_speed_up")),
        ]
        for row in _constant(keep_ratio)
    ]
    return signed(table(heads, lines))


def tests(family: str) -> str:
    """The differences of one family of paired tests, a row per pair of methods and schedule."""
    found, named, ratios = result()["tests"][family.replace("-", " ")], by_name(), _ratios()
    lines: dict[str, dict[float, str]] = {}
    for one in found:
        first, second = named[one["setting"]], named[one["other"]]
        pair = f"{method_label(first)} minus {method_label(second)}, {first['schedule']}"
        if family == "decreasing":
            pair = f"{method_label(first)}, decreasing minus constant"
        lines.setdefault(pair, {})[first["keep_ratio"]] = f"{signed_with_ends(one['difference'])}{_mark(one)}"
    heads = ["pair, schedule", *(f"{keep:g}" for keep in ratios)]
    shown = table(heads, [[pair, *(cells.get(keep, "") for keep in ratios)] for pair, cells in lines.items()])
    counted = f"† p < 0.05 (McNemar): {sum(one['p'] < 0.05 for one in found)} of {len(found)}"
    held = f"‡ after Holm's correction too: {sum(one['p_holm'] < 0.05 for one in found)}"
    return f"{shown}\n\nPoints, with the 95 % interval of the paired bootstrap. {counted}; {held}."


def schedules() -> str:
    """Every method and schedule, averaged over the ratios, with the effect of the schedule."""
    heads = ["method", "schedule", "mean accuracy", "minus constant", "minus ToMe", "vision, times as fast"]
    rows = [
        [
            method_label(one),
            f"{one['schedule']}",
            with_ends(one["accuracy"]),
            *(difference(one[key]) for key in ("minus_constant", "minus_tome")),
            _mean_speed(one),
        ]
        for one in result()["pooled"]
    ]
    return table(heads, rows)


def latency(keep_ratio: str) -> str:
    """The cost of every method and schedule at one ratio."""
    heads = ["method", "schedule", "tokens out", "FLOPs", "vision ms", "times as fast", "depth ms"]
    heads += ["whole answer ms", "times as fast"]
    timed = result()["latency"]
    if not timed["rounds"]:
        return NOT_TIMED
    rows = [
        [
            method_label(row),
            f"{row['schedule']}",
            str(row["tokens_out"]),
            f"{row['vit_flops_ratio']:.2f}",
            f"{row['vision_ms']:.1f}",
            f"{row['vision_speed_up']:.2f}",
            "" if row["depth"] is None else f"{timed['depth_ms'][row['depth']]:.1f}",
            f"{row['total_ms']:.1f}",
            f"{row['total_speed_up']:.2f}",
        ]
        for row in compared()
        if is_at(row, keep_ratio) and "vision_ms" in row
    ]
    how = (
        f"Median of {timed['rounds']} interleaved rounds, batch 1, {of_machine(result())}; depth comes on top"
    )
    controls = ", ".join(f"{value:.1f}" for value in timed["controls"])
    again = f"No merging, timed again in every round: {controls} ms"
    return f"{table(heads, rows)}\n\n{how}. {again}. {environment_line(result())}."


def pareto() -> str:
    """The plot, and the settings that no other beats in both speed and accuracy."""
    if not result()["latency"]["rounds"]:
        return NOT_TIMED
    heads = ["setting", "number", "tokens out", "accuracy", "vision with depth, ms", "FLOPs"]
    rows = [
        [
            row["name"],
            f"{number}",
            str(row["tokens_out"]),
            with_ends(row["accuracy"]["overall"]),
            f"{seen_ms(row, result()['latency']['depth_ms']):.1f}",
            f"{row['vit_flops_ratio']:.2f}",
        ]
        for number, row in enumerate(map(by_name().__getitem__, result()["pareto"]), start=1)
    ]
    image = "![accuracy against vision latency](images/pareto.png)"
    best = "No other setting is both faster and at least as accurate as one of these:"
    return f"{image}\n\n{best}\n\n{table(heads, rows)}"


def refused() -> str:
    """The settings that a method refuses, and why."""
    rows = [[one["name"], one["reason"]] for one in result()["refused"]]
    return table(["setting", "why not"], rows, right=False)


def _constant(keep_ratio: str) -> list[Row]:
    return [row for row in compared() if is_at(row, keep_ratio) and row["schedule"] == "constant"]


def _ratios() -> list[float]:
    return sorted({row["keep_ratio"] for row in compared() if row["method"] != "none"}, reverse=True)


def _by_ratio(schedule: str, cell: Callable[[Row], str]) -> str:
    """Arrange rows as methods by ratios; the unmerged baseline, which has no schedule, comes first."""
    ratios, lines = _ratios(), dict[str, dict[float, str]]()
    for row in compared():
        if row["method"] != "none" and row["schedule"] == schedule:
            lines.setdefault(method_label(row), {})[row["keep_ratio"]] = cell(row)
    plain: Sequence[str] = ["none", cell(by_name()["none"]), *("" for _ in ratios[1:])]
    rows = [[method, *(cells.get(keep, "refused") for keep in ratios)] for method, cells in lines.items()]
    return table(["method", *(f"{keep:g}" for keep in ratios)], [plain, *rows])


def _mean_speed(pooled: Row) -> str:
    keys = ("method", "depth", "schedule")
    same = [row for row in compared() if all(row[key] == pooled[key] for key in keys)]
    found = [row["vision_speed_up"] for row in same if "vision_speed_up" in row]
    return f"{sum(found) / len(found):.2f}" if found else ""


def _mark(one: Row) -> str:
    """Mark p < 0.05, and p < 0.05 after Holm's correction."""
    return " ‡" if one["p_holm"] < 0.05 else " †" if one["p"] < 0.05 else ""
