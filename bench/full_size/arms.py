"""What is asked for: one frame under every views, method and ratio."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bench.full_size.checkpoints import SHAPES
from evals.rooms import TEST, make_scene, render
from vlm.families import Views, family_class

WIDTH, HEIGHT = 640, 480
MM_PER_M = 1000
METHODS = ("tosa", "tome", "cubist")
KEEP_RATIOS = (0.25, 0.1)
QUESTION = "how many chairs are there?"


@dataclass(frozen=True)
class Arm:
    """Name how a model sees and merges a frame. keep_ratio: None for no merging."""

    views: Views
    method: str
    keep_ratio: float | None = None

    @property
    def fields(self) -> dict[str, str]:
        """Return the fields of a request whose answer has one token and comes from no cache."""
        fields = {"question": QUESTION, "views": self.views, "method": self.method}
        fields |= {"max_new_tokens": "1", "cache": "false"}
        return fields if self.keep_ratio is None else {**fields, "keep_ratio": str(self.keep_ratio)}


class Frame(NamedTuple):
    """Hold the files of a frame: JPEG, and PNG of 16 bits in millimetres."""

    image: bytes
    depth: bytes


def arms_of(name: str, keep_ratios: Sequence[float]) -> list[Arm]:
    """List the arms of a model: those of one views together, no merging first."""
    kinds = family_class(SHAPES[name].family).kinds
    views: tuple[Views, ...] = ("single", "anyres") if "anyres" in kinds else ("auto",)
    merged = [(method, keep) for keep in keep_ratios for method in METHODS]
    return [Arm(seen, *setting) for seen in views for setting in (("none", None), *merged)]


def frame() -> Frame:
    """Draw a frame of 640 x 480 px: a room of the test split, stretched."""
    drawn = render(make_scene(TEST.start))
    rgb = Image.fromarray(drawn.rgb).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    depth = np.round(drawn.depth * MM_PER_M).astype(np.uint16)
    whole = Image.fromarray(depth).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    return Frame(_file(rgb, format="JPEG", quality=90), _file(whole, format="PNG"))


def _file(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()
