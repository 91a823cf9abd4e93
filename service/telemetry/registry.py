"""A registry of one app: no creation times, and gauges that are read at each scrape."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger("tosa_vqa")
PREFIX = "tosa_vqa_"
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Registry(CollectorRegistry):
    """Collect without `_created` samples, which would add a third of a counter's series."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


class Watched(Collector):
    """Read gauges at each scrape; one that raises is left out, counted, and logged once."""

    def __init__(self) -> None:
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._said: set[str] = set()

    def add(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Register a gauge under a name without prefix; a second one of the same name replaces the first."""
        assert _NAME.fullmatch(name), name
        self._gauges = {**self._gauges, name: (description.removesuffix(".") + ".", read)}

    def collect(self) -> Iterable[Metric]:
        unreadable = 0
        for name, (description, read) in self._gauges.items():
            try:
                value = float(read())
            except Exception:
                unreadable += 1
                self._say(name)
                continue
            yield GaugeMetricFamily(PREFIX + name, description, value)
        yield GaugeMetricFamily(
            f"{PREFIX}unreadable_gauges", "Gauges that could not be read at this scrape.", unreadable
        )

    def _say(self, name: str) -> None:
        if name not in self._said:
            self._said.add(name)
            log.exception("gauge %s cannot be read", name)
