"""The result of a load test as a table, sentences and a markdown report."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from evals.environment import environment_line

OUTCOMES = ("sent", "answered", "refused", "failed", "lost")
TIMES = ("p50", "p90", "p99")
PREFIXES = {"steps": "load "}
HEADS = ("scenario", *OUTCOMES, "answers/s", *(f"{name} ms" for name in TIMES))


def rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """Yield a row for every summary of every scenario."""
    for name, scenario in result["scenarios"].items():
        for part, one in _summaries(scenario):
            latency = one["latency_ms"] or {}
            counts = [str(one[outcome]) for outcome in OUTCOMES]
            times = [f"{latency[time]:.1f}" if latency else "" for time in TIMES]
            yield [f"{name}: {part}", *counts, f"{one['throughput']:.1f}", *times]


def _summaries(scenario: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in scenario.items():
        if isinstance(value, dict):
            name = f"{path} {key}".strip()
            if "noise_ms" in value:
                yield PREFIXES.get(path, "") + key if path else name, value
            else:
                yield from _summaries(value, name)


def _whole(scenario: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the summaries that count every request of a scenario once, without those of its labels."""
    parts = dict(_summaries(scenario))
    whole = [parts[name] for name in ("all", "probe") if name in parts]
    return whole or list(parts.values())


def print_table(result: dict[str, Any], console: Console) -> None:
    table = Table(title=f"load of {result['url']}", box=SIMPLE_HEAD)
    for head in HEADS:
        table.add_column(head, justify="left" if head == HEADS[0] else "right")
    for row in rows(result):
        table.add_row(*row)
    console.print(table)
    for line in findings(result):
        console.print(line)


def findings(result: dict[str, Any]) -> Iterator[str]:
    """Yield sentences with what the table of latencies does not show."""
    scenarios = result["scenarios"]
    for name, describe in FINDINGS.items():
        if name in scenarios:
            yield from describe(scenarios[name])
    every = [one for scenario in scenarios.values() for _, one in _summaries(scenario)]
    noise = max((one["noise_ms"]["p99"] for one in every if one["noise_ms"]), default=0.0)
    lost = sum(one["lost"] for scenario in scenarios.values() for one in _whole(scenario))
    cores = [scenario["cores"] for scenario in scenarios.values()]
    client, others = (max(used[who] for used in cores) for who in ("client", "others"))
    yield (
        f"Cores used beside the service, in the scenario with most: {client:.2f} by the clients, "
        f"{others:.2f} by other programs{'' if result.get('server_torch_threads') else ' and the service'}."
    )
    yield f"The generator sent at most {noise:.1f} ms late (largest p99); requests lost: {lost}."


def _capacity(scenario: dict[str, Any]) -> Iterator[str]:
    alone, full = scenario["alone"], scenario["full"]
    yield (
        f"Capacity: {full['throughput']:.1f} answers per second with {scenario['clients']} clients; "
        f"one client alone waits {alone['latency_ms']['p50']:.1f} ms."
    )


def _cache(scenario: dict[str, Any]) -> Iterator[str]:
    first, later = (scenario["labels"][name]["latency_ms"] for name in ("first", "later"))
    if first and later:
        yield (
            f"Ten questions about one frame: {first['p50']:.1f} ms for the first, {later['p50']:.1f} ms "
            f"for the others; {scenario['cached']} of {scenario['asked']} answered from the frame cache."
        )


def _stream(scenario: dict[str, Any]) -> Iterator[str]:
    first, gaps = scenario.get("first_event_ms"), scenario.get("between_events_ms")
    if first:
        then = f", then every {gaps['p50']:.1f} ms" if gaps else ""
        yield f"Streaming: first event after {first['p50']:.1f} ms{then}."


def _overload(scenario: dict[str, Any]) -> Iterator[str]:
    accepted, refused = scenario["all"]["latency_ms"], scenario["all"]["refused_ms"]
    if accepted:
        factor = accepted["p99"] / scenario["p99_at_capacity_ms"]
        yield (
            f"At {scenario['factor']} times the capacity: p99 of accepted requests {factor:.2f} times that "
            "at capacity."
        )
    if refused:
        unsaid = scenario["all"]["without_retry_after"]
        yield f"Refused within {refused['p99']:.1f} ms (p99), {unsaid} without Retry-After."
    if scenario["probe"]["latency_ms"]:
        yield f"/livez meanwhile: p99 {scenario['probe']['latency_ms']['p99']:.1f} ms."


def _disconnects(scenario: dict[str, Any]) -> Iterator[str]:
    alone, beside = (scenario[name]["latency_ms"] for name in ("alone", "beside_disconnecting"))
    gauges = ", ".join(f"{name} {value:g}" for name, value in scenario["gauges_after"].items())
    if alone and beside:
        gone = scenario["disconnecting"]["disconnected"]
        yield (
            f"Clients that disconnect: p50 of the others {alone['p50']:.1f} ms without them, "
            f"{beside['p50']:.1f} ms beside {gone}; gauges afterwards: {gauges or 'none to read'}."
        )


def _clients(scenario: dict[str, Any]) -> Iterator[str]:
    for name, arm in scenario.items():
        if not isinstance(arm, dict) or "client_cpu_ms" not in arm:
            continue
        beyond = arm["beyond_total_ms"]
        more = "" if beyond is None else f", {beyond:.1f} ms of it beside what the server reports as total"
        latency = arm["latency_ms"]
        if latency:
            yield (
                f"{name}, one kept-alive client: p50 {latency['p50']:.1f} ms{more}; "
                f"connections for {arm['sent']} requests: {arm['connections']}; client CPU "
                f"{arm['client_cpu_ms']:.1f} ms per request."
            )
    skipped = [
        (name, arm["skipped"]) for name, arm in scenario.items() if isinstance(arm, dict) and "skipped" in arm
    ]
    yield from (f"{name} was skipped: {reason}." for name, reason in skipped)


FINDINGS = {
    "capacity": _capacity,
    "clients": _clients,
    "cache": _cache,
    "stream": _stream,
    "overload": _overload,
    "disconnects": _disconnects,
}


def write_markdown(result: dict[str, Any], path: Path, images: list[Path]) -> None:
    """Write the report beside its JSON."""
    machine = result["machine"]
    lines = [
        "# Load test",
        "",
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, commit "
        f"{machine['commit']}, {result['date'][:10]}. Latency counts from when a request was due.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"| --- |{' ---: |' * (len(HEADS) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows(result)),
        "",
        *(f"- {line}" for line in findings(result)),
        "",
        f"{environment_line(result)}.",
        "",
        *(f"![{image.stem}]({os.path.relpath(image, path.parent)})\n" for image in images),
    ]
    path.write_text("\n".join(lines).rstrip() + "\n")
