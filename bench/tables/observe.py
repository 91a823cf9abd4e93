"""The tables of docs/observe.md, from the code and from what a running service shows.

A document marks the place of a table with `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from service.telemetry.logs import FIELDS
from service.telemetry.metrics import Metrics
from service.telemetry.registry import PREFIX

PLACE = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.S)


def filled(text: str, exposition: str) -> str:
    """Put the tables in their places; `exposition` is GET /metrics of a ready service."""
    tables = {"metrics": metrics(), "gauges": gauges(exposition), "log_fields": log_fields()}
    return PLACE.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", text)


def metrics() -> str:
    """Every counter and histogram, with its labels."""
    declared = Metrics(Settings.model_validate({"api_keys": "name=not-a-secret-at-all"})).declared
    rows = [(f"`{one.name}`", one.kind, ", ".join(one.labels), one.description) for one in declared]
    return _table(("metric", "kind", "labels", "what is counted"), rows)


def gauges(exposition: str) -> str:
    """Every gauge of ours, as a service shows it."""
    families = [one for one in text_string_to_metric_families(exposition) if one.name.startswith(PREFIX)]
    rows = [(f"`{one.name}`", one.documentation) for one in families if one.type == "gauge"]
    return _table(("gauge", "what it shows"), sorted(rows))


def log_fields() -> str:
    """Every field of the line of a request."""
    return _table(("field", "what it says"), [(f"`{name}`", about) for name, about in FIELDS.items()])


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
