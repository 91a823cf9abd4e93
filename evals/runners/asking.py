"""The request for an item, its answer, and a loop that keeps several requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evals.runners.items import DatasetError, Item, read_file
from evals.spoiled_files import spoiled_file
from service.roomqa.condition import Condition

if TYPE_CHECKING:
    from depth import DepthMap

Spec = Mapping[str, Any]
"""Merge and depth fields of a request, as in JSON; every item is sent with them."""
REPORTED = ("merge", "depth", "usage", "finish_reason", "cached", "batch_size", "timings_ms")


class RunError(Exception):
    """The run cannot continue; the message says why and what to do."""


@dataclass(frozen=True)
class Answer:
    """The answer to an item: its text, and the report of the response.

    report: merge, depth, usage, timings_ms and so on as /vqa returns them; only `error`, with a code and a
    message, for an item that was refused and has no text.
    """

    id: str
    text: str
    report: dict[str, Any]

    @property
    def code(self) -> str | None:
        """Return why there is no answer, None if there is one."""
        return self.report.get("error", {}).get("code")

    @property
    def refusal(self) -> str:
        """Format the error in one line."""
        error = self.report.get("error", {})
        return f"{error.get('code')}: {error.get('message')}"


class Answerer(Protocol):
    """Answers items. settings: JSON of all that answers depend on; a run resumes only if it is the same."""

    name: str

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Yield one answer per item, in any order. Raises RunError and DatasetError."""
        ...


def fields_of(item: Item, spec: Spec) -> dict[str, Any]:
    """Return the fields of the request beside its files: the item's own, then what the spec says."""
    given = (
        {}
        if item.depth_preset is None or not sends_depth(item, spec)
        else {"depth_preset": item.depth_preset}
    )
    if merges_frames(spec) and item.geometry is not None:
        given |= item.geometry.fields(item.images[0], sends_depth(item, spec))
    return {
        "question": item.question,
        "max_new_tokens": item.max_new_tokens,
        **given,
        "method": "none",
        **spec,
    }


def merges_frames(spec: Spec) -> bool:
    """Whether tokens merge across the frames of an item, so that it is sent with where they were taken."""
    return spec.get("merge_frames") is not None


def sends_depth(item: Item, spec: Spec) -> bool:
    """Whether depth files are sent: the method may use them and the spec does not forbid it."""
    from tosa import METHODS  # imports torch, which reading answers does not need

    method = METHODS.get(spec.get("method") or "none")
    may_use = method is None or method.needs_spatial or bool(spec.get("options")) or merges_frames(spec)
    return bool(item.depths) and may_use and spec.get("depth") in (None, "client")


def files_of(item: Item, spec: Spec) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Read the bytes of images, spoiled where the item says so, and of depth maps. Raises DatasetError."""
    depths = item.depths if sends_depth(item, spec) else ()
    images = tuple(map(read_file, item.images))
    if item.condition is not None:
        fog = _depth_for_fog(item, spec) if item.condition.kind == "fog" else [None] * len(images)
        images = tuple(
            _spoiled(data, path, item.condition, depth)
            for data, path, depth in zip(images, item.images, fog, strict=True)
        )
    return images, tuple(map(read_file, depths))


def _spoiled(data: bytes, path: Path, condition: Condition, depth: DepthMap | None) -> bytes:
    try:
        return spoiled_file(data, condition, depth)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        raise DatasetError(f"{path} cannot be spoiled: {error}") from error


def _depth_for_fog(item: Item, spec: Spec) -> list[DepthMap]:
    """Read the item's depth maps as the request describes them, also where they are not sent."""
    from depth import DepthError, read_depth

    if not item.depths:
        raise DatasetError(
            f"{item.images[0]}: fog is made from depth, and this picture has no depth map: give some with "
            "--depths, or choose another condition"
        )
    given = {name: spec.get(f"depth_{name}") for name in ("scale", "kind", "invalid", "key", "shape")}
    options = {name: value for name, value in given.items() if value is not None}
    if preset := spec.get("depth_preset") or (None if options else item.depth_preset):
        options["preset"] = preset
    maps = []
    for path in item.depths:
        try:
            maps.append(read_depth(read_file(path), **options)[0])
        except DepthError as error:
            raise DatasetError(f"{path} cannot be read as depth: {error}") from error
    return maps


def answered(item: Item, body: Mapping[str, Any]) -> Answer:
    """Select the fields of a response that reports use."""
    return Answer(item.id, body["answer"], {name: body[name] for name in REPORTED})


def concurrently(
    ask: Callable[[Item], Awaitable[Answer]],
    items: Sequence[Item],
    width: int,
    close: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Iterator[Answer]:
    """Ask `width` items at a time and yield answers as they come; the first error ends the run.

    Runs in its own event loop, which pauses while the caller handles an answer.
    """
    todo = iter(items)
    pending: set[asyncio.Future[Answer]] = set()

    async def some() -> set[asyncio.Future[Answer]]:
        nonlocal pending
        while len(pending) < width and (item := next(todo, None)) is not None:
            pending.add(asyncio.ensure_future(ask(item)))
        if not pending:
            return set()
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        return done

    async def end() -> None:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if close is not None:
            await close()

    with asyncio.Runner() as runner:
        try:
            while done := runner.run(some()):
                for task in sorted(done, key=lambda one: one.exception() is not None):
                    yield task.result()
        finally:
            runner.run(end())
