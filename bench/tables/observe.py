"""Tables of what an operator sees, from the code and, for gauges, from a service that runs for a moment."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from bench.tables.markdown import table
from service.app import create_app
from service.errors import ServiceError
from service.settings import Settings
from service.telemetry.logs import FIELDS
from service.telemetry.metrics import Metrics
from service.telemetry.registry import PREFIX

POLL_S = 0.05


def metrics() -> str:
    """Every counter and histogram, with its labels."""
    servers = {"language": "vllm", "language_urls": "http://127.0.0.1:8001"}
    declared = Metrics(Settings.model_validate({"api_keys": "name=not-a-secret-at-all", **servers})).declared
    rows = [[f"`{one.name}`", one.kind, ", ".join(one.labels), one.description] for one in declared]
    return table(["metric", "kind", "labels", "what is counted"], rows, right=False)


def gauges() -> str:
    """Every gauge of ours, as a ready service shows it."""
    families = text_string_to_metric_families(asyncio.run(_exposition()))
    rows = [
        [f"`{one.name}`", one.documentation]
        for one in families
        if one.name.startswith(PREFIX) and one.type == "gauge"
    ]
    return table(["gauge", "what it shows"], sorted(rows), right=False)


def log_fields() -> str:
    """Every field of the line of a request."""
    rows = [[f"`{name}`", about] for name, about in FIELDS.items()]
    return table(["field", "what it says"], rows, right=False)


async def _exposition() -> str:
    """Return GET /metrics of the embedded model, once it is ready."""
    app = create_app(Settings(depth_model="none"))
    async with app.router.lifespan_context(app):
        while not _is_ready(app.state.service):
            await asyncio.sleep(POLL_S)
        return app.state.service.telemetry.exposition()[0].decode()


def _is_ready(state: object) -> bool:
    try:
        state.check_ready()  # type: ignore[attr-defined]
    except ServiceError:
        return False
    return True
