"""How a picture becomes the views that a vision tower sees: known from its size alone, before it is decoded.

Pure values: nothing here looks at pixels or weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Grid = tuple[int, int]
Size = tuple[int, int]
Views = Literal["auto", "single", "anyres", "video"]
Modality = Literal["image", "video"]
Saving = Literal["vit", "lm"]
VIEWS: tuple[Views, ...] = ("auto", "single", "anyres", "video")


@dataclass(frozen=True)
class Box:
    """The part of a picture that a view shows, as fractions of its width and height.

    What lies outside 0..1 is padding.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0


WHOLE = Box()


@dataclass(frozen=True)
class View:
    """One input of the tower. frames: the indices of the pictures it shows, several in a video of Qwen."""

    box: Box = WHOLE
    frames: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Layout:
    """One picture, or one video, as its model sees it.

    kind: "single" is one view of the whole picture, squeezed to the proportions of the tower; "native" is one
    view as the checkpoint's own processor makes it; "anyres" are several views, "video" several frames.
    size: (height, width) in px, of each frame. grid: patches (rows, columns) of every view. tiles: (rows,
    columns) of the tiles among the views, (0, 0) if there are none. pixels: (height, width) in px of every
    view.
    """

    kind: Literal["single", "native", "anyres", "video"]
    size: Size
    grid: Grid
    pixels: Size
    views: tuple[View, ...] = (View(),)
    tiles: Grid = (0, 0)

    @property
    def modality(self) -> Modality:
        """Return what the prompt calls it."""
        return "video" if self.kind == "video" else "image"

    @property
    def num_frames(self) -> int:
        """Return how many pictures it is made of."""
        return 1 + max(frame for view in self.views for frame in view.frames)


@dataclass(frozen=True)
class Spelled:
    """What one placeholder of the chat template becomes.

    text: with one visual token in the place of every run of them. counts: the length of each run.
    """

    text: str
    counts: tuple[int, ...]
    modality: Modality = "image"


@dataclass(frozen=True, eq=False)
class Visual:
    """What the language model reads of one picture or video.

    features: [M, D], for its visual tokens in order. deepstack: more of them, for the first layers of the
    language model (Qwen3-VL). places: int64 [3, M], time, row and column of each, where positions are
    three-dimensional; span: how many positions one run of visual tokens takes there. patches: int64 [P], the
    row of features that holds each patch of the only view, -1 if none does; None where it was not followed.
    """

    features: Tensor
    deepstack: tuple[Tensor, ...] = ()
    places: Tensor | None = None
    span: int = 0
    patches: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Return the memory that the tensors take."""
        tensors = (self.features, *self.deepstack, self.places, self.patches)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def to(self, device: torch.device | str) -> Visual:
        """Move the tensors to a device."""
        places = None if self.places is None else self.places.to(device)
        deepstack = tuple(level.to(device) for level in self.deepstack)
        patches = None if self.patches is None else self.patches.to(device)
        return Visual(self.features.to(device), deepstack, places, self.span, patches)


def tile_boxes(tiles: Grid, inner: Box = WHOLE) -> tuple[View, ...]:
    """Cut a canvas into equal tiles, row by row. inner: the part of the canvas that the picture fills."""
    rows, columns = tiles
    width, height = inner.right - inner.left, inner.bottom - inner.top

    def across(at: float) -> float:
        return (at - inner.left) / width

    def down(at: float) -> float:
        return (at - inner.top) / height

    return tuple(
        View(Box(across(c / columns), down(r / rows), across((c + 1) / columns), down((r + 1) / rows)))
        for r in range(rows)
        for c in range(columns)
    )


def padded_box(size: Size) -> Box:
    """Return the box of a square view that shows a whole picture between bars."""
    height, width = size
    side = max(size)
    left, top = (side - width) // 2, (side - height) // 2
    return Box(-left / width, -top / height, (side - left) / width, (side - top) / height)


def cropped_box(size: Size) -> Box:
    """Return the box of the square in the middle of a picture."""
    height, width = size
    side = min(size)
    left, top = (width - side) / 2 / width, (height - side) / 2 / height
    return Box(left, top, 1 - left, 1 - top)
