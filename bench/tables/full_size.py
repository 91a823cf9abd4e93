"""Tables of the time to first token at full size, and the bars it is held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.tables.markdown import load_if_measured, of_machine, setting, table
from evals.environment import environment_line

NAME = "full_size"
NOT_MEASURED = "Not measured: `make full-size` does."
HEADS = [
    *("views", "setting", "visual tokens", "first token, ms (range)", "time", "FLOPs"),
    *("vision, ms", "time", "FLOPs", "prefill, ms", "time", "FLOPs", "rest, ms"),
]
BARS = (
    ("llava-onevision-0.5b", "anyres", "tosa", 0.25, 0.55),
    ("qwen3-vl-2b", "auto", "tosa", 0.25, 0.75),
)
"""Model, views, method and ratio, and the most that the time to first token may be of that of none."""

Run = Mapping[str, Any]


def full_size(model: str) -> str:
    """Every setting of a model, beside no merging of the same views."""
    result = _result()
    runs = [run for run in _runs(result) if run["model"] == model]
    if not runs:
        return NOT_MEASURED
    shown = table(HEADS, [_refused(run) if "refused" in run else _row(run) for run in runs])
    parameters = next(each["parameters"] for each in result["models"] if each["name"] == model)
    width, height = result["frame_px"]
    how = (
        f"{parameters / 1e6:,.0f} million random weights, {result['dtype']}, {result['device']}; one frame "
        f"of {width} x {height} px; medians of {result['rounds']} interleaved rounds"
    )
    return f"{shown}\n\n{how}. {of_machine(result)}. {environment_line(result)}."


def bars() -> str:
    """Every bar and whether it is held."""
    runs = list(_runs(_result()))
    if not runs:
        return NOT_MEASURED
    heads = ["model", "views", "setting", "first token against none, at most", "measured", "FLOPs", "bar"]
    return table(heads, [_bar(runs, *bar) for bar in BARS])


def _bar(runs: list[Run], model: str, views: str, method: str, keep_ratio: float, limit: float) -> list[str]:
    key = {"model": model, "views": views, "method": method, "keep_ratio": keep_ratio}
    named = [model, views, f"{method} {keep_ratio:g}", f"{limit:g}"]
    run = next((run for run in runs if key.items() <= run.items() and "refused" not in run), None)
    if run is None:
        return [*named, "", "", "not measured"]
    ratio = run["first_token_ratio"]
    return [*named, f"{ratio:.2f}", f"{run['flops_ratio']:.2f}", "held" if ratio <= limit else "missed"]


def _row(run: Run) -> list[str]:
    low, high = run["first_token_range_ms"]
    return [
        run["views"],
        setting(dict(run)),
        str(run["visual_tokens"]),
        f"{run['first_token_ms']:,.0f} ({low:,.0f} to {high:,.0f})",
        f"{run['first_token_ratio']:.2f}",
        f"{run['flops_ratio']:.2f}",
        *_part(run, "vision"),
        *_part(run, "prefill"),
        f"{run['rest_ms']:,.0f}",
    ]


def _part(run: Run, part: str) -> list[str]:
    ratios = (f"{run[name]:.2f}" for name in (f"{part}_ratio", f"{part}_flops_ratio"))
    return [f"{run[f'{part}_ms']:,.0f}", *ratios]


def _refused(run: Run) -> list[str]:
    code = run["refused"].partition(":")[0]
    return [run["views"], setting(dict(run)), f"`{code}`", *("" for _ in HEADS[3:])]


def _result() -> dict[str, Any]:
    """Read the result, which may not be there yet."""
    return load_if_measured(NAME) or {"models": []}


def _runs(result: Mapping[str, Any]) -> Iterator[Run]:
    for each in result["models"]:
        for run in each["runs"]:
            yield {"model": each["name"], **run}
