"""Tables of measurements: latency, cost of merging, load, other servers, the depth estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.load import report as load_report
from bench.peers import report as peers_report
from bench.peers.arms import ARMS
from bench.sizing import rows as sizing_rows
from bench.tables.markdown import load as result_of
from bench.tables.markdown import of_machine, of_model, setting, table
from evals.environment import environment_line, versions_of


def depth_estimation() -> str:
    """Errors of the embedded depth estimator, beside those of the mean room."""
    result = result_of("depth_estimation")
    heads = ["", "AbsRel", "delta1", "AbsRel, things only", "delta1, things only", "worst frame, AbsRel"]
    keys = ("abs_rel", "delta1", "things_abs_rel", "things_delta1", "worst_abs_rel")
    named = (("room-depth-tiny", "estimated"), ("the mean room, without looking", "blind_guess"))
    rows = [[name, *(f"{result[part][key]:.3f}" for key in keys)] for name, part in named]
    return f"{table(heads, rows)}\n\n{result['split']['frames']} frozen test frames, {of_model(result)}."


def first_paint() -> str:
    """How soon the playground shows something, and how large it is."""
    result = result_of("first_paint")
    heads = ["screen", "first paint, ms (most)", "first room, ms (most)"]
    rows = [
        [run["size"], *(_median_most(run[name]) for name in ("paint_ms", "room_ms"))]
        for run in result["runs"]
    ]
    bars, rounds = result["bars"], result["runs"][0]["rounds"]
    paint = max(run["paint_ms"]["most"] for run in result["runs"])
    held = paint < bars["paint_ms"] and result["bytes"] < bars["bytes"]
    said = (
        f"Median of {rounds} visits, each with an empty cache. All files of the page have "
        f"{result['bytes'] / 1000:.0f} kB compressed. The bars are {bars['paint_ms']} ms to the first paint "
        f"and {bars['bytes'] / 1_000_000:.0f} MB: {'held' if held else 'missed'}, {of_machine(result)}."
    )
    return f"{table(heads, rows)}\n\n{said}"


def _median_most(times: Mapping[str, float]) -> str:
    return f"{times['median']:.0f} ({times['most']:.0f})"


def vision_latency() -> str:
    """Vision time by method, beside the ratio of multiply-adds."""
    result = result_of("vision_latency")
    heads = ["method", "tokens out", "vision ms (median)", "range", "time against none", "FLOPs against none"]
    rows = [
        [
            setting(run),
            str(run["tokens_out"]),
            f"{run['median_ms']:.1f}",
            f"{run['fastest_ms']:.1f} to {run['slowest_ms']:.1f}",
            f"{run['time_ratio']:.2f}",
            f"{run['flops_ratio']:.2f}",
        ]
        for run in result["runs"]
    ]
    how = f"Median of {result['rounds']} interleaved rounds, batch 1"
    return f"{table(heads, rows)}\n\n{how}, {of_model(result)}. {environment_line(result)}."


def merge_cost(shape: str) -> str:
    """Time of every method at one encoder shape, beside the oracle that merges at no cost."""
    result = result_of("merge_cost")
    runs = [run for run in result["runs"] if run["shape"] == shape]
    heads = ["batch", "method", "tokens out", "ms (median)", "speed-up", "of the oracle's (range)"]
    rows = [
        [
            str(run["batch"]),
            setting(run),
            str(run.get("tokens_out", "")),
            f"{run['median_ms']:.1f}",
            f"{run['speed_up']:.2f}" if "speed_up" in run else "1.00",
            _share(run),
        ]
        for run in runs
    ]
    rounds = {run["batch"]: run["rounds"] for run in runs}
    counts = ", ".join(f"{number} at batch {batch}" for batch, number in rounds.items())
    how = f"Random weights, {result['dtype']}, median of interleaved rounds ({counts}); above 100 % is noise"
    return f"{table(heads, rows)}\n\n{how}, {of_machine(result)}. {environment_line(result)}."


def _share(run: dict[str, Any]) -> str:
    if "share_of_oracle" not in run:
        return ""
    median, low, high = (f"{100 * share:.0f}" for share in (run["share_of_oracle"], *run["share_range"]))
    return f"{median} % ({low} to {high})"


def sizing(known: str) -> str:
    """Cores for a rate of questions when this share of the frames is cached; computed, not measured."""
    heads = ["mode", "questions/s", "core ms each", "cores", "replicas", "machines", "memory, GiB"]
    return table(heads, sizing_rows(float(known)))


def load() -> str:
    """Every scenario of the load test, and its findings."""
    result = result_of("load/report")
    shown = table(list(load_report.HEADS), list(load_report.rows(result)))
    findings = "\n".join(f"- {line}" for line in load_report.findings(result))
    signed = f"Commit {result['machine']['commit']}, {of_machine(result)}. {environment_line(result)}."
    return f"{shown}\n\n{findings}\n\n{signed}"


def peers(part: str) -> str:
    """One table of the comparison with other servers."""
    result = result_of("peers")
    if part == "bars":
        return table(["bar", "limit", "median", "range", "verdict"], peers_report.bar_rows(result))
    columns = {"servers": peers_report.COLUMNS, "cpu": peers_report.CPU_COLUMNS}
    if part in columns:
        shown = table(["", *columns[part]], peers_report.rows(result, columns[part]))
    else:
        shown = table(["", *peers_report.OVERLOAD_COLUMNS], peers_report.overload_rows(result))
    return shown if part != "servers" else f"{shown}\n\n{peers_caption(result)}"


def peers_caption(result: dict[str, Any]) -> str:
    rounds = len({run["round"] for run in result["runs"]})
    disturbed, parts = peers_report.noisy(result)
    return (
        f"Median (range) over interleaved rounds: {rounds}. Parts disturbed by other programs in every try: "
        f"{disturbed} of {parts}. Torch threads of every server: {result['work']['torch_threads']}. "
        f"Model {result['model']['id']}, commit {result['runs'][-1]['commit']}, {of_machine(result)}. "
        f"{environment_line(result)}.{_peers_own(result)}"
    )


def _peers_own(result: dict[str, Any]) -> str:
    """Name the environments of the arms with a separate one."""
    named = {run["arm"]: run["environment"] for run in result["runs"] if "environment" in run}
    return "".join(
        f" {ARMS[arm].title}: {package} {own[package]}, {versions_of(own)}."
        for arm, own in named.items()
        if arm in ARMS and (package := ARMS[arm].package)
    )
