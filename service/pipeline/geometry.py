"""Where the patches of a frame are, from the pose, intrinsics and depth that were sent with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from depth import DepthError, DepthMap, Note
from depth.geometry import (
    Intrinsics,
    PatchGrid,
    Pose,
    SampledFrame,
    patch_points,
    read_intrinsics,
    read_pose,
    sampled,
)
from service.errors import ServiceError
from service.pipeline.planning import Planned, plan_request
from service.request.schemas import VqaFields, VqaRequest
from tosa.frames import FrameTokens
from vlm import Visual, Vlm

NO_POSE = Note("no_pose", "The frame has no pose: its tokens have no place, and a quota of the budget.")
NO_DEPTH = Note("no_depth", "No depth was sent with the frame: its tokens have no place, and a quota.")
NO_UNIT = Note("no_unit", "The depth has no unit, so that it gives no places: send metric depth.")
ESTIMATED = Note(
    "estimated_depth",
    "Estimated depth guides merging inside the frame alone: its scale may differ from frame to frame. The "
    "tokens of the frame have no place, and a quota of the budget: send measured depth.",
)

_PROBE_PX = (384, 384)


@dataclass(frozen=True, eq=False)
class FrameGeometry:
    """Hold where the patches of one frame are, and when it was taken.

    points [P, 3] float32 in camera axes, NaN without a place; is_edge [P]. pose [4, 4] float64. camera, grid
    as in FrameTokens. sample: to compare the frame with others. size: (height, width) of the image in px.
    """

    points: Tensor
    is_edge: Tensor
    pose: Tensor | None
    camera: tuple[float, float, float, float]
    grid: tuple[int, int]
    timestamp: float | None
    sample: SampledFrame | None
    size: tuple[int, int]
    notes: tuple[Note, ...] = ()

    def tokens(self, visual: Visual, separators: int) -> FrameTokens:
        """Return the tokens of the encoded frame with their places, on the CPU and without separators."""
        assert visual.patches is not None, "the encoder followed the patches"
        features = visual.features[: len(visual.features) - separators].detach().cpu()
        return FrameTokens(
            features.contiguous(),
            visual.patches.detach().cpu(),
            self.points,
            self.is_edge,
            self.pose,
            self.grid,
            self.camera,
            self.timestamp,
        )


def frame_geometry(
    vlm: Vlm,
    request: VqaRequest,
    at: int,
    planned: Planned,
    size: tuple[int, int],
    depth: DepthMap | None,
    is_estimated: bool = False,
) -> FrameGeometry:
    """Place the patches of one image of a request. size: its (height, width), upright.

    depth: as it was sent. is_estimated: another will be estimated, which gives no places. Raises
    DepthError: bad_pose, bad_convention, bad_intrinsics, with the field as it was sent.
    """
    fields, layout = request.fields, planned.layout
    with _named("timestamps", at, fields.timestamps):
        time = _timestamp(fields.timestamps, at)
    raw = None if fields.poses is None else fields.poses[at]
    pose: Pose | None = None
    if raw is not None:
        with _named("poses", at, fields.poses):
            pose = read_pose(raw, fields.convention)
    notes: list[Note] = []
    camera = _camera(fields.intrinsics, "intrinsics", at, size, notes)
    own = (
        None
        if depth is None
        else _camera(fields.depth_intrinsics, "depth_intrinsics", at, depth.shape, notes)
    )
    if pose is not None and camera is None and own is None:
        raise DepthError("intrinsics_missing")
    if own is None and camera is not None and depth is not None:
        own = camera.scaled(depth.shape)
    (view,) = layout.views
    patches = PatchGrid(planned.plan.shape.grid, vlm.family.patch_px, layout.pixels, astuple(view.box))
    if depth is None or own is None or pose is None:
        notes.append(_why_nowhere(depth, pose, is_estimated))
        return _nowhere(patches, time, size, notes)
    if depth.unit is None:
        notes.append(NO_UNIT)
    found = patch_points(depth, own, patches)
    return FrameGeometry(
        torch.from_numpy(found.points),
        torch.from_numpy(found.is_edge),
        torch.from_numpy(pose),
        _in_patches(own, patches),
        patches.grid,
        time,
        sampled(depth, own, pose),
        size,
        tuple(notes),
    )


def check_times(geometry: tuple[FrameGeometry, ...], before: float | None = None) -> None:
    """Refuse a timestamp that is earlier than the one before. Raises DepthError (bad_timestamp)."""
    for at, frame in enumerate(geometry):
        if frame.timestamp is None:
            continue
        if before is not None and frame.timestamp < before:
            error = DepthError("timestamp_order")
            error.field = f"timestamps[{at}]"
            raise error
        before = frame.timestamp


def require_followed(vlm: Vlm, planned: Planned) -> None:
    """Refuse a model whose tokens have no patches of their own. Raises ServiceError (bad_merge_frames)."""
    if not vlm.family.follows_patches(planned.layout):
        raise ServiceError("bad_merge_frames", reason="model", field="merge_frames")


def require_frames(vlm: Vlm) -> None:
    """Refuse a model that cannot take frames, before any came. Raises ServiceError (bad_merge_frames)."""
    fields = VqaFields(question="?", merge_frames="none")
    require_followed(vlm, plan_request(vlm, fields, False, [_PROBE_PX])[0])


def _nowhere(
    patches: PatchGrid, time: float | None, size: tuple[int, int], notes: list[Note]
) -> FrameGeometry:
    number = patches.grid[0] * patches.grid[1]
    nowhere = torch.full((number, 3), torch.nan)
    flat = torch.zeros(number, dtype=torch.bool)
    return FrameGeometry(
        nowhere, flat, None, (0.0, 0.0, 0.0, 0.0), patches.grid, time, None, size, tuple(notes)
    )


def _why_nowhere(depth: DepthMap | None, pose: Pose | None, is_estimated: bool) -> Note:
    if depth is not None and pose is None:
        return NO_POSE
    return ESTIMATED if is_estimated else NO_DEPTH


def _camera(raw: Any, name: str, at: int, size: tuple[int, int], notes: list[Note]) -> Intrinsics | None:
    own = raw[at] if isinstance(raw, list) else raw
    if own is None:
        return None
    with _named(name, at, raw):
        camera, doubts = read_intrinsics(own, size)
    notes.extend(doubts)
    return camera


def _in_patches(camera: Intrinsics, patches: PatchGrid) -> tuple[float, float, float, float]:
    """Return (fx, fy, cx, cy) in patches: a point (x, y, z) is in column floor(fx x / z + cx)."""
    down, across = patches.edges(0), patches.edges(1)
    x, y = 1 / (across[1] - across[0]), 1 / (down[1] - down[0])
    return (
        float(camera.fx / camera.width * x),
        float(camera.fy / camera.height * y),
        float(((camera.cx + 0.5) / camera.width - across[0]) * x),
        float(((camera.cy + 0.5) / camera.height - down[0]) * y),
    )


def _timestamp(times: list[float | None] | None, at: int) -> float | None:
    return None if times is None else times[at]


@contextmanager
def _named(name: str, at: int, values: Any) -> Iterator[None]:
    """Let errors name the entry of a list, such as poses[2]."""
    try:
        yield
    except DepthError as error:
        if error.field != "convention":
            error.field = f"{name}[{at}]" if isinstance(values, list) and len(values) > 1 else name
        raise
