"""Tables of language engines: throughput, repeated frames, second questions, and their bars."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from bench.language.arms import ALL_CORES, ALONE, ANYRES, LONG_ARMS, NONE, TOSA, Arm
from bench.tables.markdown import load_if_measured, of_machine, table
from evals.environment import environment_line

NAME = "language"
EQUALITY = "language_equality"
NOT_MEASURED = "Not measured: `make language` does."
AT_LEAST = tuple(
    (f"{name} behind vLLM against {other.name}, same views", Arm("vllm", ANYRES | method), other, least)
    for other in (ALONE, ALL_CORES)
    for name, method, least in (("none", NONE, 1.0), ("tosa 0.25", TOSA, 1.7))
)
"""What is compared, and the ratio of answers in a second that is wanted."""
LONG_AT_LEAST = 1.5
SECOND_AT_MOST = 0.5

Run = Mapping[str, Any]


def throughput() -> str:
    """Milliseconds an answer, every frame different, by server, views, method and clients."""
    result = _result()
    if result is None:
        return NOT_MEASURED
    runs = [run for run in result["runs"] if run["part"] == "throughput"]
    clients = sorted({run["clients"] for run in runs})
    heads = ["server, views, method"]
    for number in clients:
        heads += [f"{number} clients, ms an answer", "against vLLM alone"]
    rows = []
    for arm in dict.fromkeys(run["arm"] for run in runs):
        row = [arm]
        for number in clients:
            ms = _median(runs, arm, number, "ms_an_answer")
            row += [f"{ms:.0f}", f"{_median(runs, ALONE.name, number, 'ms_an_answer') / ms:.2f}"]
        rows.append([*row, _right(runs, arm)])
    rounds = len({run["round"] for run in runs})
    how = f"Medians of {rounds} interleaved rounds, every frame new"
    how += f". {result['note']}" if "note" in result else ""
    return f"{table([*heads, 'right'], rows)}\n\n{how}. {of_machine(result)}. {environment_line(result)}."


def bars() -> str:
    """Every bar and whether it is held."""
    result = _result()
    if result is None:
        return NOT_MEASURED
    rows = [row for bar in AT_LEAST for row in _compared(result, *bar)]
    torch, vllm = (_median(result["runs"], arm.name, 16, "tokens_per_s", "long answers") for arm in LONG_ARMS)
    rows.append(
        _row(
            "tokens a second, Qwen2-0.5B's shape, against torch",
            LONG_AT_LEAST,
            vllm / torch,
            vllm >= LONG_AT_LEAST * torch,
        )
    )
    rows += [_repeated(result, other, name) for other in (ALONE, ALL_CORES) for name in ("mean", "median")]
    for arm, second in result["second_question"].items():
        row = _row(
            f"first token of the second question against the first, {arm}",
            SECOND_AT_MOST,
            second["ratio"],
            second["ratio"] <= SECOND_AT_MOST,
        )
        rows.append([row[0], f"at most {SECOND_AT_MOST:g}", *row[2:]])
    return table(["what", "wanted", "measured", "bar"], rows)


def equality() -> str:
    """How many answers are those of the language model in the process."""
    result = load_if_measured(EQUALITY)
    if result is None:
        return NOT_MEASURED
    rows = [
        [f"{number} at once", f"{one['equal']:,}", f"{one['near']}", f"{one['different']}"]
        for number, one in result["at_once"].items()
    ]
    heads = [f"{result['questions']:,} questions", "equal", f"margin under {result['margin']:g}", "different"]
    return f"{table(heads, rows)}\n\n{len(result['settings'])} settings in turn. {of_machine(result)}."


def _compared(
    result: Mapping[str, Any], what: str, ours: Arm, other: Arm, least: float
) -> Sequence[list[str]]:
    rows = []
    runs = [run for run in result["runs"] if run["part"] == "throughput"]
    for clients in sorted({run["clients"] for run in runs}):
        mine, theirs = (_median(runs, arm.name, clients, "ms_an_answer") for arm in (ours, other))
        rows.append(_row(f"{what}, {clients} clients", least, theirs / mine, theirs / mine >= least))
    return rows


def _repeated(result: Mapping[str, Any], other: Arm, name: Literal["mean", "median"]) -> list[str]:
    """Compare the time of an answer about a frame that is known."""
    alone, ours = (
        next(
            run["ms_an_answer"] if name == "mean" else run["latency_ms"]["p50"]
            for run in result["runs"]
            if (run["part"], run["arm"]) == ("repeated frames", arm.name)
        )
        for arm in (other, Arm("vllm", ANYRES | TOSA))
    )
    return _row(f"repeated frames, {name}, against {other.name}", 1.0, alone / ours, ours <= alone)


def _row(what: str, wanted: float, measured: float, is_held: bool) -> list[str]:
    return [what, f"at least {wanted:g}", f"{measured:.2f}", "held" if is_held else "missed"]


def _median(runs: Sequence[Run], arm: str, clients: int, name: str, part: str = "throughput") -> float:
    """Return the median over the rounds of one arm."""
    found = [run[name] for run in runs if (run["part"], run["arm"], run["clients"]) == (part, arm, clients)]
    return statistics.median(found)


def _right(runs: Sequence[Run], arm: str) -> str:
    own = [run for run in runs if run["arm"] == arm]
    return f"{100 * sum(run['right'] for run in own) / sum(run['sent'] for run in own):.0f} %"


def _result() -> dict[str, Any] | None:
    return load_if_measured(NAME)
