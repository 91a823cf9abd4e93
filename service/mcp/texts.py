"""Results as short texts that a language model reads; programs read the structured content beside them."""

from __future__ import annotations

from collections.abc import Sequence

from tosa_vqa_client import (
    Answer,
    ComparedAnswer,
    ComparedRefusal,
    Comparison,
    DepthInspection,
    DepthUsed,
    EpisodeUsed,
    EpisodeWalk,
    FrameTaken,
    MergeDone,
    Methods,
)
from tosa_vqa_client.results import DepthUnderstood

MOST_FRAMES, MOST_PLACES = 40, 5


def answer_text(answer: Answer) -> str:
    """Write an answer, what merging did, how depth was read, and what it took."""
    lines = [f"Answer: {answer.answer}"]
    if answer.confidence is not None:
        lines.append(f"Confidence: {answer.confidence:.2f}")
    if answer.finish_reason == "length":
        lines.append("The answer was cut off: ask with a larger max_new_tokens.")
    lines += [f"Merging: {_merge(answer.merge)}", f"Depth: {_depth_used(answer.depth)}"]
    lines += _doubts(answer.depth)
    times = answer.timings_ms
    lines.append(f"Time: {times.total:.0f} ms, of which the vision encoder {times.vision or 0:.0f} ms")
    return "\n".join(lines)


def comparison_text(compared: Comparison) -> str:
    """Write a comparison as a table, then whether the answers agree."""
    rows = ["| method | answer | visual tokens | vision ms | total ms |", "|---|---|---|---|---|"]
    rows += map(_row, compared.results)
    same = [agrees for agrees in compared.agree if agrees is not None]
    if compared.baseline is not None:
        rows.append(f"\n{sum(same)} of {len(same)} answers equal the one without merging.")
    return "\n".join(rows)


def inspection_text(seen: DepthInspection) -> str:
    """Write how a depth file was read."""
    lines = [
        f"{seen.format} of {seen.width} x {seen.height} pixels, {seen.dtype}: {_understood(seen)}",
        f"Valid pixels: {(seen.valid_ratio or 0) * 100:.1f} %, median {seen.median:g}",
    ]
    if seen.same_aspect is not None:
        lines.append(f"Same proportions as the image: {'yes' if seen.same_aspect else 'no'}")
    return "\n".join([*lines, *_doubts(seen)])


def methods_text(listed: Methods) -> str:
    """Write one line for each method."""
    return "\n".join(
        f"{one.name}: {one.title}; depth {one.needs_depth}; set by {' or '.join(one.dials) or 'nothing'}"
        + "".join(f"; option {option.name} ({option.default})" for option in one.options)
        for one in listed.methods
    )


def _merge(merge: MergeDone) -> str:
    if merge.method == "none":
        return f"none, all {merge.tokens_in} visual tokens"
    return (
        f"{merge.method} kept {merge.tokens_out} of {merge.tokens_in} visual tokens, "
        f"{merge.vit_flops_ratio * 100:.0f} % of the encoder's operations"
    )


def _depth_used(depth: DepthUsed | None) -> str:
    if depth is None:
        return "none was sent or used"
    if depth.source in ("none", "unused"):
        return {"none": "row and column only", "unused": "sent, and not used by this method"}[depth.source]
    by = "" if depth.estimator is None else f" by {depth.estimator.id}"
    return f"{'estimated' if depth.source == 'estimate' else 'sent'}{by}, {_understood(depth)}"


def _understood(depth: DepthUnderstood) -> str:
    span = "" if depth.range is None else f" from {depth.range[0]:g} to {depth.range[1]:g} {depth.unit or ''}"
    return f"{depth.kind or 'unknown'}{span}".rstrip()


def _doubts(depth: DepthUnderstood | None) -> Sequence[str]:
    if depth is None:
        return ()
    guesses = [f"Guessed: {one.sentence} A depth_preset would say it." for one in depth.guessed]
    return [*guesses, *(f"Doubt: {note.sentence}" for note in depth.notes)]


def _row(result: ComparedAnswer | ComparedRefusal) -> str:
    if isinstance(result, ComparedRefusal):
        return f"| {result.spec.get('method')} | refused: {result.error.message} | | | |"
    merge, times = result.merge, result.timings_ms
    cells = (merge.method, result.answer, f"{merge.tokens_out} of {merge.tokens_in}")
    return f"| {' | '.join(cells)} | {times.vision or 0:.0f} | {times.total:.0f} |"


def taken_text(taken: FrameTaken) -> str:
    """Write what became of a frame."""
    lines = [
        f"Frame {taken.frame} was taken in: {taken.admitted} of its {taken.tokens} tokens, {taken.placed} "
        f"with a place. The episode holds {taken.held} tokens of {taken.frames} frames."
    ]
    if taken.agreement is not None:
        lines.append(f"Overlapping frames agree on {taken.agreement:.0%} of what both see.")
    return "\n".join([*lines, *(f"Doubt: {note.sentence}" for note in taken.notes)])


def episode_text(used: EpisodeUsed) -> str:
    """Write what an episode holds, and what a question reads of it."""
    lines = [
        f"Episode: {used.frames} frames, {used.tokens} tokens held; a question reads {used.visual_tokens} "
        f"visual tokens, merged by {used.merge_frames}."
    ]
    read = [f"frame {one.frame}: {one.kept}" for one in used.kept if one.kept][:MOST_FRAMES]
    if read:
        lines.append(f"Tokens read of {', '.join(read)}")
    return "\n".join([*lines, *(f"Doubt: {note.sentence}" for note in used.notes)])


def walk_text(walk: EpisodeWalk) -> str:
    """Write where the camera was, and which places the answer's attention read most."""
    lines = [f"Cameras with a pose: {len(walk.cameras)}"]
    known = [token for token in walk.tokens if token.attention is not None and token.place is not None]
    for token in sorted(known, key=lambda one: -(one.attention or 0))[:MOST_PLACES]:
        place = ", ".join(f"{value:.2f}" for value in token.place or ())
        frames = ", ".join(map(str, token.frames))
        lines.append(
            f"Read most: ({place}) m of frames {frames}, {token.attention or 0:.2%} of the attention"
        )
    return "\n".join(lines)
