"""Responses as tables for people."""

from __future__ import annotations

from typing import Any

from service.pipeline.response_models import (
    DepthInspection,
    DepthUnderstood,
    DepthUsed,
    EpisodeUsed,
    VqaResponse,
)


def print_answer(answer: VqaResponse) -> None:
    """Print a response as a table."""
    from rich.text import Text

    merge, used = answer.merge, answer.usage
    table = _table()
    table.add_row("answer", Text(answer.answer, style="bold"))
    table.add_row("model", f"{answer.model.id} ({answer.model.revision})")
    table.add_row("method", f"{merge.method}, keep_ratio {merge.keep_ratio}")
    if merge.layers is not None:
        table.add_row("layers", ", ".join(map(str, merge.layers)))
    if merge.options is not None:
        table.add_row("options", ", ".join(f"{name}={value}" for name, value in merge.options.items()))
    table.add_row("visual tokens", f"{merge.tokens_in} -> {merge.tokens_out}")
    table.add_row("vision FLOPs", f"{merge.vit_flops_ratio:.2f} of those without merging")
    table.add_row("depth", _depth_summary(answer.depth))
    for guess in () if answer.depth is None else answer.depth.guessed:
        table.add_row("guessed", guess.sentence)
    for note in () if answer.depth is None else answer.depth.notes:
        table.add_row("note", note.sentence)
    if answer.episode is not None:
        table.add_row("frames", _frames_summary(answer.episode))
        for note in answer.episode.notes:
            table.add_row("note", note.sentence)
    table.add_row("prompt, answer", f"{used.prompt_tokens}, {used.completion_tokens} tokens")
    for stage, ms in answer.timings_ms:
        table.add_row(stage, "-" if ms is None else f"{ms:.1f} ms")
    _print(table)


def print_inspection(inspection: DepthInspection) -> None:
    """Print how a depth file was read."""
    table = _table()
    size = f"{inspection.width} x {inspection.height}"
    table.add_row("file", f"{inspection.format}, {inspection.dtype}, {size}")
    table.add_row("depth", _kind(inspection))
    table.add_row("range", f"{_range(inspection)}, median {_with_unit(inspection.median, inspection.unit)}")
    table.add_row("unit", "none" if inspection.scale is None else _scale(inspection))
    table.add_row("valid", f"{inspection.valid_ratio:.1%} of the pixels")
    for guess in inspection.guessed:
        table.add_row("guessed", guess.sentence)
    for note in inspection.notes:
        table.add_row("note", note.sentence)
    if inspection.same_aspect:
        table.add_row("image", "has the same proportions")
    _print(table)


def _depth_summary(depth: DepthUsed | None) -> str:
    if depth is None:
        return "not used"
    if depth.source == "none":
        return "none: row and column only"
    if depth.source == "unused":
        return "sent, and not used by this method"
    valid = f"{depth.valid_ratio:.0%} valid"
    if depth.source == "client":
        return f"{_kind(depth)}, {_range(depth)}, {valid}"
    by = depth.estimator
    assert by is not None, "the source is estimate"
    remembered = ", remembered" if depth.cached else ""
    return f"{depth.kind}, estimated by {by.id} ({by.licence or 'no licence named'}){remembered}"


def _frames_summary(used: EpisodeUsed) -> str:
    agreement = "" if used.agreement is None else f", overlapping ones agree by {used.agreement:.0%}"
    placed = sum(frame.placed for frame in used.kept)
    return (
        f"{used.frames}, {used.merge_frames}: {used.tokens} tokens, {placed} with a place -> "
        f"{used.visual_tokens} read{agreement}"
    )


def _kind(depth: DepthUnderstood) -> str:
    return f"{depth.kind}" if depth.preset is None else f"{depth.kind}, as {depth.preset}"


def _range(depth: DepthUnderstood) -> str:
    if depth.range is None:
        return "ranges differ"
    nearest, farthest = depth.range
    return f"{nearest:g} to {_with_unit(farthest, depth.unit)}"


def _with_unit(value: float, unit: str | None) -> str:
    return f"{value:g}" if unit is None else f"{value:g} {unit}"


def _scale(depth: DepthUnderstood) -> str:
    return f"{depth.unit}; {depth.scale:g} of the file make one"


def _table() -> Any:
    from rich.table import Table

    return Table(show_header=False, box=None)


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
