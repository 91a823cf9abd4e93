"""Write the tables between the marks of a document.

`<!-- table: NAME -->` or `<!-- table: NAME ARGUMENT -->`, and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench.tables import (
    ablations,
    code,
    commands,
    comparison,
    conditions,
    containers,
    dense,
    episodes,
    families,
    full_size,
    http,
    language,
    large,
    licences,
    measured,
    observe,
    overhead,
    walks,
)
from bench.tables.markdown import ROOT
from vlm.checkpoint_files import MANIFEST, write_manifest

DOCUMENTS = (
    "README.md",
    "vlm/checkpoints/room-tiny/README.md",
    "depth/checkpoints/room-depth-tiny/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)
PLACE = re.compile(r"(<!-- table: (\w+)(?: ([\w./-]+))? -->\n).*?(<!-- end -->)", re.S)
TABLES: dict[str, Callable[..., str]] = {
    "headline": comparison.headline,
    "rooms": comparison.types_short,
    "rooms_methods": comparison.methods,
    "comparison": comparison.accuracy,
    "comparison_4000": large.settings,
    "comparison_purity": comparison.purity,
    "comparison_types": comparison.types,
    "comparison_tests": comparison.tests,
    "comparison_schedules": comparison.schedules,
    "comparison_latency": comparison.latency,
    "comparison_pareto": comparison.pareto,
    "comparison_refused": comparison.refused,
    "comparison_depth_types": ablations.depth_types,
    "ablations": ablations.ablations,
    "conditions": conditions.conditions,
    "conditions_differences": conditions.differences,
    "dense_shape": dense.shape,
    "dense_distance": dense.distance,
    "dense_controls": dense.controls,
    "first_paint": measured.first_paint,
    "vision_latency": measured.vision_latency,
    "merge_cost": measured.merge_cost,
    "depth_estimation": measured.depth_estimation,
    "defaults": code.defaults,
    "methods": code.methods,
    "presets": code.presets,
    "depth_notes": code.depth_notes,
    "depth_formats": code.depth_formats,
    "settings": code.settings,
    "licences": licences.packages,
    "licence_conditions": licences.conditions,
    "addresses": http.addresses,
    "request_fields": http.request_fields,
    "response_fields": http.response_fields,
    "own_response_fields": http.own_response_fields,
    "error_fields": http.error_fields,
    "fields_of": http.error_fields,
    "error_codes": http.error_codes,
    "cli": commands.cli,
    "metrics": observe.metrics,
    "gauges": observe.gauges,
    "log_fields": observe.log_fields,
    "load": measured.load,
    "peers": measured.peers,
    "sizing": measured.sizing,
    "overhead": overhead.overhead,
    "full_size": full_size.full_size,
    "full_size_bars": full_size.bars,
    "language_throughput": language.throughput,
    "language_bars": language.bars,
    "language_equality": language.equality,
    "containers_price": containers.price,
    "containers_load": containers.loads,
    "containers_sizes": containers.sizes,
    "containers_events": containers.events,
    "containers_frames": containers.frames,
    "containers_images": containers.images,
    "families": families.cells_of_families,
    "episodes": episodes.episodes,
    "walks": walks.methods,
    "walks_budgets": walks.budgets,
    "walks_controls": walks.controls,
}


def write_all() -> None:
    """Update every table that differs from the results."""
    for path in (ROOT / name for name in DOCUMENTS):
        if not is_fresh(path):
            path.write_text(filled(path.read_text()))
            if (path.parent / MANIFEST).exists():
                write_manifest(path.parent)


def is_fresh(path: Path) -> bool:
    """Whether every table of a document agrees with the results."""
    text = path.read_text()
    return filled(text) == text


def filled(text: str) -> str:
    """Return the text with every table between its marks."""

    def put(found: re.Match[str]) -> str:
        arguments = () if found[3] is None else (found[3],)
        return f"{found[1]}\n{TABLES[found[2]](*arguments)}\n\n{found[4]}"

    return PLACE.sub(put, text)
