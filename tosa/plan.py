"""Plan what every layer does for a request: all token counts are fixed before the model runs.

A plan needs only the shape of the encoder and what the method declares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch

from tosa.counts import LayerCounts, count_tokens
from tosa.grid import Grid, Regions, regions
from tosa.methods import METHODS, MergeMethod
from tosa.methods.options import BadOption
from tosa.schedule import alpha_schedule
from tosa.shape import EncoderShape
from tosa.spatial import KERNELS
from tosa.spec import (
    ORDERS,
    MergeSpec,
    MergeStep,
    Order,
    PlanError,
    UnknownMethod,
    require_kinds,
    shown,
)


@dataclass(frozen=True)
class MergePlan:
    """Say what every layer does. Hashable, so that compiled encoders can be kept per plan."""

    spec: MergeSpec
    shape: EncoderShape
    steps: tuple[MergeStep | None, ...]  # one per layer that runs
    method: str
    prop_attn: bool
    order: Order
    counts: tuple[int, ...]  # patch tokens at the entry of layer 0..L-1 and at the end, prefix included
    grids: tuple[Grid, ...] | None = None  # the same for the grid (of cells), where the method keeps one
    windows: tuple[Grid | None, ...] | None = None  # and for the attention windows on it
    regions: tuple[Regions, ...] | None = None  # cells in the windows, where methods merge freely inside
    options: object | None = None  # the method's own options, defaults filled in
    needs_spatial: bool = False
    at_entry: bool = False  # tokens merge at the entry of a layer, so that its attention has fewer already

    @property
    def tokens_in(self) -> int:
        """Patch tokens before the first layer."""
        return self.counts[0] - self.shape.num_prefix

    @property
    def tokens_out(self) -> int:
        """Patch tokens after the last layer."""
        return self.counts[-1] - self.shape.num_prefix

    @property
    def cells_in(self) -> int:
        """Cells before the first layer: what a reducer behind the encoder makes of its patches."""
        return self.shape.num_cells

    @property
    def cells_out(self) -> int:
        """Cells after the last layer; patch tokens where a cell is one patch."""
        return self.tokens_out // self.shape.slots

    @property
    def keep_ratio(self) -> float:
        """Actual share of patch tokens left at the end."""
        return self.tokens_out / self.tokens_in

    @property
    def flops_ratio(self) -> float:
        """FLOPs of the layers with this plan over those without merging; matching is not counted."""
        return self.flops() / make_plan(MergeSpec(), self.shape).flops()

    def flops(self, shape: EncoderShape | None = None) -> int:
        """Count floating-point operations of the layers for one image, two for a multiply-add.

        shape: another encoder of as many layers, for its widths. Matching is not counted; the padding of
        windows is. Raises ValueError when the widths are not known.
        """
        shape = shape or self.shape
        if shape.hidden_size <= 0 or shape.mlp_size <= 0 or shape.num_layers != len(self.steps):
            raise ValueError(f"FLOPs need both widths of an encoder of {len(self.steps)} layers, got {shape}")
        c, macs = shape.hidden_size, 0
        for layer in range(len(self.steps)):
            for tokens, keys in self._attention(layer):
                macs += tokens * (4 * c * c + 2 * keys * c)
            macs += 2 * self.counts[layer + 1] * c * shape.mlp_size
        return 2 * macs

    def table(self) -> str:
        """Format what every layer does as text, a line per layer."""
        header, rows = "layer  tokens in  removed  tokens out", []
        for layer, (before, after) in enumerate(pairwise(self.counts)):
            rows.append(f"{layer:5}{before:11}{before - after:9}{after:12}")
        for name, sizes in (("grid", self.grids), ("window", self.windows)):
            if sizes and sizes[0]:
                cells = [f"{size[0]}x{size[1]}" for size in sizes[1:] if size]
                header += f"{name:>9}"
                rows = [row + f"{cell:>9}" for row, cell in zip(rows, cells, strict=True)]
        return "\n".join([header, *rows])

    def _attention(self, layer: int) -> Regions:
        """Count the tokens that attend in a layer, and the keys each one sees, for each size of window."""
        at, slots = layer + 1 if self.at_entry else layer, self.shape.slots
        window = self.windows[at] if self.windows else None
        if (window is None and self.regions is None) or layer in self.shape.global_layers:
            return ((self.counts[at], self.counts[at]),)
        if self.regions is not None:
            found = self.regions[at]
        else:
            assert self.grids is not None and window is not None
            found = regions(self.grids[at], window)
            if self.shape.pads_windows:
                found = ((sum(number for number, _ in found), math.prod(window)),)
        return tuple((number * tokens * slots, tokens * slots) for number, tokens in found)


def make_plan(spec: MergeSpec, shape: EncoderShape) -> MergePlan:
    """Check a request against an encoder and spread its removals over the layers.

    With keep_ratio, tokens_out is exactly max(1, round(keep_ratio * P)), or the nearest grid for methods
    that keep one, and the nearest share of a window for others on windows. P counts cells where patches merge
    in cells, and so do r and r_hw; counts are of patch tokens all the same. With r, a layer removes at most
    half of its patch tokens, as in the papers.
    Raises PlanError whatever the fields hold, or UnknownMethod listing the known names. The same request
    gives the same object.
    """
    if not isinstance(spec.method, str) or spec.method not in METHODS:
        raise UnknownMethod(spec.method, METHODS)
    method = METHODS[spec.method]
    _check_pair(method, shape)
    require_kinds(spec)
    _check_words(spec)
    plan = _plan.__wrapped__ if torch.compiler.is_compiling() else _plan  # a graph takes no cache
    return plan(spec, shape, method, _options(spec, method))


# The checks run before the cache, in which 1, 1.0 and True are the same key.
@lru_cache(maxsize=1024)
def _plan(spec: MergeSpec, shape: EncoderShape, method: MergeMethod, options: object | None) -> MergePlan:
    counted = count_tokens(spec, shape, method)
    counts = tuple(n * shape.slots + shape.num_prefix for n in counted.tokens)
    prop_attn = method.prop_attn if spec.prop_attn is None else spec.prop_attn
    return MergePlan(
        spec=spec,
        shape=shape,
        steps=_layer_steps(spec, shape, method, counted, options),
        method=spec.method,
        prop_attn=prop_attn and counts[-1] < counts[0],  # with nothing merged, every size is 1
        order=spec.order,
        counts=counts,
        grids=counted.grids,
        windows=counted.windows,
        regions=counted.regions,
        options=options,
        needs_spatial=method.needs_spatial_with(options),
        at_entry=method.site == "before_block",
    )


def _layer_steps(
    spec: MergeSpec, shape: EncoderShape, method: MergeMethod, counted: LayerCounts, options: object | None
) -> tuple[MergeStep | None, ...]:
    alphas = alpha_schedule(spec.alpha, shape.num_layers)
    return tuple(
        MergeStep(
            layer,
            r=before - after if counted.r is None else counted.r[layer],
            r_hw=counted.r_hw[layer] if counted.r_hw else None,
            alpha=alphas[layer] if method.needs_spatial else 1.0,
            num_layers=shape.num_layers,
            options=options,
            kept=None if counted.regions is None else tuple(left for _, left in counted.regions[layer + 1]),
        )
        if after < before
        else None
        for layer, (before, after) in enumerate(pairwise(counted.tokens))
    )


def _check_pair(method: MergeMethod, shape: EncoderShape) -> None:
    needs_grid = shape.requires_grid or (shape.window is not None and shape.pads_windows)
    if needs_grid and not method.keeps_grid:
        working = [name for name, other in METHODS.items() if other.keeps_grid]
        needs = f"{shape.name} needs its grid and {method.name} breaks it up"
        message = f"{needs}; it runs with {', '.join(working)} as method."
        raise PlanError("incompatible", "method", message, choices=working)


def _check_words(spec: MergeSpec) -> None:
    for field, words in (("order", ORDERS), ("spatial_kernel", KERNELS)):
        value = getattr(spec, field)
        if value not in words:
            message = f"{field} must be {' or '.join(words)}, got {shown(value)}."
            raise PlanError(f"bad_{field}", field, message, choices=words)


def _options(spec: MergeSpec, method: MergeMethod) -> object | None:
    """Build the method's options from the request's, with defaults for the others."""
    given = dict(spec.options)
    known = list(method.options.__dataclass_fields__) if method.options else []  # fields() is not traceable
    for name in given:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            message = f"{method.name} has no option {shown(name)}; {has}."
            raise PlanError("unknown_option", "options", message, choices=known or None)
    if method.options is None:
        return None
    try:
        return method.options(**given)
    except BadOption as error:
        message = f"{method.name}: {error}."
        raise PlanError("bad_option", "options", message, limit=error.limit, choices=error.choices) from error
