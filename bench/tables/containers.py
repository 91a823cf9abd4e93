"""Tables of what containers cost, of the load test through the proxy, and of several replicas."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.containers.price import ARMS
from bench.load import report
from bench.tables.markdown import load, of_machine, table

TITLES = {
    "uncontained": "a process, no container",
    "hardened": "one container, hardened",
    "compose": "the stack, through HAProxy",
}
EVENTS = {
    "killed": "one replica killed with `kill -9`",
    "drained": "one replica stopped",
    "rolled": "all restarted in turn",
}
SCENARIOS = ("capacity", "mixed", "overload", "disconnects")

Run = Mapping[str, Any]


def price() -> str:
    """Latency and throughput of each arm, and what it loses against the process without a container."""
    result = load("containers")
    part = result["price"]
    heads = [
        "",
        "1 client, median ms",
        "slower by (range)",
        "16 clients, answers/s",
        "fewer by (range)",
        "lost",
    ]
    rows = [
        [
            TITLES[arm],
            f"{one['alone_ms']:.1f}",
            "" if arm == ARMS[0] else _range(one, "latency"),
            f"{one['answers_per_s']:.1f}",
            "" if arm == ARMS[0] else _range(one, "throughput"),
            str(one["lost"]),
        ]
        for arm, one in part["arms"].items()
    ]
    rounds = len({one["round"] for one in part["rounds"]})
    how = (
        f"Medians of {rounds} interleaved rounds, every frame new, threads of torch: {part['torch_threads']}"
    )
    up = f"From `compose up` to the first answer: {part['up_to_first_answer_s']:.0f} s"
    return f"{table(heads, rows)}\n\n{how}. {up}. {_where(result, part)}"


def _range(one: Run, name: str) -> str:
    least, most = (f"{one[f'{name}_{end}']:.1f}" for end in ("least", "most"))
    return f"{one[f'{name}_percent']:.1f} % ({least} to {most})"


def loads() -> str:
    """The load test of the compose file, beside the same one on the process without a container."""
    result = load("containers")
    part = result["load"]
    rows = [
        [name, *row]
        for name in ("uncontained", "compose")
        for row in report.rows(part[name])
        if row[0] == "mixed: all" or not row[0].startswith("mixed: ")
    ]
    said = "\n".join(
        f"- {TITLES[name]}: {' '.join(_findings(part[name]))}" for name in ("uncontained", "compose")
    )
    return f"{table(['', *report.HEADS], rows)}\n\n{said}\n\n{_where(result, part)}"


def _findings(one: Run) -> list[str]:
    kept = ("At ", "Refused", "/livez", "Clients that")
    return [line for line in report.findings(dict(one)) if line.startswith(kept)]


def sizes() -> str:
    """What one and three replicas answer on the same cores."""
    result = load("containers")
    part = result["scale"]
    heads = [
        "replicas, torch threads each",
        "answers/s",
        "p50 ms",
        "p99 ms",
        "by replica",
        "by client",
        "lost",
    ]
    rows = [
        [
            f"{one['replicas']}, {one['threads']}",
            f"{one['answers_per_s']:.1f}",
            *(f"{one['latency_ms'][name]:.0f}" for name in ("p50", "p99")),
            ", ".join(map(str, one["by_replica"])),
            f"{min(one['by_client'])} to {max(one['by_client'])}",
            str(one["lost"]),
        ]
        for one in part["sizes"]
    ]
    first = part["sizes"][0]
    how = f"{first['sent']} questions of {len(first['by_client'])} clients, every frame new"
    return f"{table(heads, rows)}\n\n{how}. {_where(result, part)}"


def events() -> str:
    """What is lost of three replicas' requests when one goes, and when all are restarted."""
    result = load("containers")
    heads = ["under load", "sent", "answered", "refused or failed", "connections closed", "p99 ms"]
    rows = [
        [
            title,
            *(f"{one[key]:,}" for key in ("sent", "answered")),
            _codes(one),
            str(one["lost"]),
            f"{one['latency_ms']['p99']:.0f}",
        ]
        for name, title in EVENTS.items()
        for one in (result["scale"][name],)
    ]
    return f"{table(heads, rows)}\n\n{_where(result, result['scale'])}"


def _codes(one: Run) -> str:
    number = one["refused"] + one["failed"]
    named = ", ".join(f"{times} `{code}`" for code, times in one["codes"].items())
    return f"{number}: {named}" if number else "0"


def frames() -> str:
    """How many answers come from a remembered frame, with and without its name in the header."""
    result = load("containers")
    runs = result["scale"]["frames"]
    heads = ["", "answers from a remembered frame", "answers/s", "p50 ms"]
    rows = []
    for named, title in ((False, "no header"), (True, "`X-Frame-ID`")):
        own = [one for one in runs if one["named"] is named]
        rows.append(
            [
                title,
                f"{100 * median(one['remembered'] for one in own):.0f} %",
                f"{median(one['answers_per_s'] for one in own):.1f}",
                f"{median(one['latency_ms']['p50'] for one in own):.0f}",
            ]
        )
    each = runs[0]
    best = 100 * (1 - 1 / each["questions"])
    how = (
        f"{each['questions']} questions about each of {each['frames']} frames, mixed, medians of "
        f"{len(runs) // 2} rounds; if each frame is encoded once, {best:.0f} %"
    )
    return f"{table(heads, rows)}\n\n{how}. {_where(result, result['scale'])}"


def images() -> str:
    """Sizes of the images, and how long a build took with everything new."""
    result = load("containers")
    rows = [
        [f"`{name}`", f"{one['megabytes'] / 1000:.2f}", f"{one['seconds']:.0f}"]
        for name, one in result["images"].items()
    ]
    return table(["target", "GB", "build, s"], rows)


def _where(result: Run, part: Run) -> str:
    inside = part["container"]
    names = ", ".join(f"{name} {inside[name]}" for name in ("torch", "transformers", "uvicorn", "uvloop"))
    machine = f"{of_machine(dict(result)).split(', torch')[0]}, {part['measured']}"
    return f"{machine}; {result['engine']}; in the image Python {inside['python']}, {names}."
