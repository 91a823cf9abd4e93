"""How depth was interpreted, for a response; the same fields for a file and an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from depth import Assumption, DepthMap, DepthReport, Note
from depth.estimate import DepthEstimator
from depth.notes import note
from depth.report import nearest_and_farthest
from service.pipeline.model_names import public_id
from service.pipeline.response_models import DepthNote, DepthUnderstood, DepthUsed, Estimator, Guessed


@dataclass(frozen=True)
class Understood:
    """Hold the interpretation of the depth of one image."""

    kind: str
    unit: str | None
    nearest: float
    farthest: float
    scale: float | None
    preset: str | None
    valid_ratio: float
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[Note, ...] = ()


def of_report(report: DepthReport) -> Understood:
    """Make one from the report on a file."""
    return Understood(
        report.kind,
        report.unit,
        report.nearest,
        report.farthest,
        report.scale,
        report.preset,
        report.valid_ratio,
        report.assumptions,
        report.notes,
    )


def of_estimate(depth: DepthMap) -> Understood:
    """Make one from an estimated map, which has no assumptions and no notes."""
    return Understood(depth.kind, depth.unit, *nearest_and_farthest(depth), None, None, depth.valid_ratio)


def understood(parts: Sequence[Understood]) -> DepthUnderstood:
    """Summarise the depth of n >= 0 images."""
    units = {(part.kind, part.unit) for part in parts}
    assumptions = dict.fromkeys(assumption for part in parts for assumption in part.assumptions)
    notes = notes_of(parts)
    return DepthUnderstood(
        kind=_shared([part.kind for part in parts], "mixed"),
        unit=_shared([part.unit for part in parts]),
        range=_range(parts) if len(units) == 1 else None,
        scale=_shared([_rounded(part.scale) for part in parts]),
        preset=_shared([part.preset for part in parts]),
        valid_ratio=round(sum(part.valid_ratio for part in parts) / len(parts), 4) if parts else None,
        guessed=[Guessed(field=one.field, sentence=one.sentence) for one in assumptions],
        notes=_noted(notes),
    )


def used(
    source: str,
    parts: Sequence[Understood],
    estimator: DepthEstimator | None = None,
    cached: bool | None = None,
    notes: Sequence[Note] = (),
) -> DepthUsed:
    """Describe the depth that guided the merging; `estimator` and `cached` only for estimates.

    notes: on files that were sent beside it, and not used.
    """
    described = dict(understood(parts))
    return DepthUsed(
        **{**described, "notes": [*described["notes"], *_noted(notes)]},
        source=source,
        estimator=None if estimator is None else _described(estimator),
        cached=cached,
    )


def notes_of(parts: Sequence[Understood]) -> tuple[Note, ...]:
    """Return the notes on all parts, every one once."""
    return tuple(dict.fromkeys(one for part in parts for one in part.notes))


def of_sent(source: str | None, files: Sequence[Understood]) -> tuple[DepthUsed | None, tuple[Note, ...]]:
    """Describe files that were sent, for a plan that takes its depth from `source`, None if it takes none.

    The depth is None where there is none or it is yet to be estimated; the notes are for the estimates then.
    """
    notes = (*notes_of(files), note("not_used")) if files else ()
    match source:
        case "client":
            return used("client", files), ()
        case "estimate":
            return None, notes
        case "none":
            return used("none", (), notes=notes), ()
    return used("unused", files, notes=notes[-1:]) if files else None, ()


def rounded(value: float) -> float:
    """Round to six digits, which is what a float32 holds."""
    return float(f"{value:.6g}")


def _noted(notes: Sequence[Note]) -> list[DepthNote]:
    return [DepthNote(code=one.code, sentence=one.sentence) for one in notes]


def _described(estimator: DepthEstimator) -> Estimator:
    return Estimator(id=public_id(estimator.id), revision=estimator.revision, licence=estimator.licence)


def _range(parts: Sequence[Understood]) -> tuple[float, float] | None:
    """Return the nearest and the farthest of all; None where numbers grow with distance in some only."""
    falling = {part.nearest > part.farthest for part in parts if part.nearest != part.farthest}
    if len(falling) > 1:
        return None
    nearer, farther = (max, min) if falling == {True} else (min, max)
    nearest, farthest = nearer(part.nearest for part in parts), farther(part.farthest for part in parts)
    return rounded(nearest), rounded(farthest)


def _rounded(value: float | None) -> float | None:
    return None if value is None else rounded(value)


def _shared(values: Sequence[Any], otherwise: str | None = None) -> Any:
    different = set(values)
    return otherwise if len(different) > 1 else next(iter(different), None)
