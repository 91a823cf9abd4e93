"""What a caller may ask of merging, what one layer is told to do, and the errors that refuse a request.

Knows no method, no encoder and no tensor: plain hashable data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Order = Literal["raster", "merge"]


@dataclass(frozen=True)
class MergeSpec:
    """Describe the merging of one request; `make_plan` checks it against an encoder.

    keep_ratio: share of patch tokens left at the end, in (0, 1]; exact.
    r: tokens removed at each layer; an int goes through `schedule`, a tuple is taken as it is.
    schedule: "constant", "decreasing", "increasing" or the ToMe inflection in [-1, 1] (-1 = decreasing).
    alpha: weight of ToSA's visual term: "increase", "decrease", "uniform", a number in [0, 1], one per layer.
    prop_attn: proportional attention; None means the default of the method.
    order: order of the visual tokens after the last layer.
    """

    method: str = "none"
    keep_ratio: float | None = None
    r: int | tuple[int, ...] | None = None
    schedule: str | float = "constant"
    alpha: str | float | tuple[float, ...] = "increase"
    prop_attn: bool | None = None
    order: Order = "raster"


@dataclass(frozen=True)
class MergeStep:
    """Say what one layer removes: r tokens, or r_hw = (rows, columns) for methods that keep a grid."""

    layer: int
    r: int = 0
    r_hw: tuple[int, int] | None = None
    alpha: float = 1.0


class PlanError(ValueError):
    """A request that no plan can satisfy: `code` for machines, `field` of MergeSpec, text for people."""

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


class UnknownMethod(PlanError):
    """A method name that METHODS does not hold."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__("unknown_method", "method", f"unknown method {name!r}; known: {', '.join(known)}")
