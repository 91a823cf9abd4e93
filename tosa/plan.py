"""Turn a request into what every layer does: token counts follow from the plan alone, before any model work.

Knows encoders only by their shape and methods only by what they declare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

from tosa.methods import METHODS, MergeMethod
from tosa.schedule import alpha_schedule, inflection, paper_schedule, removal_weights
from tosa.spec import MergeSpec, MergeStep, Order, PlanError, UnknownMethod


@dataclass(frozen=True)
class EncoderShape:
    """Describe an encoder to the planner: the layers that run, the patch grid (rows, columns), the widths."""

    num_layers: int
    grid: tuple[int, int]
    num_prefix: int = 0
    hidden_size: int = 0
    mlp_size: int = 0

    @property
    def patches(self) -> int:
        """Patch tokens before any merging."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class MergePlan:
    """Say what every layer does. Hashable, so that compiled encoders can be kept per plan."""

    spec: MergeSpec
    shape: EncoderShape
    steps: tuple[MergeStep | None, ...]  # one per layer that runs
    method: str
    prop_attn: bool
    order: Order
    counts: tuple[int, ...]  # tokens at the entry of layer 0..L-1 and at the end, prefix included

    @property
    def tokens_in(self) -> int:
        """Patch tokens before the first layer."""
        return self.counts[0] - self.shape.num_prefix

    @property
    def tokens_out(self) -> int:
        """Patch tokens after the last layer."""
        return self.counts[-1] - self.shape.num_prefix

    @property
    def flops_ratio(self) -> float:
        """Multiply-adds of the layers with this plan over those without merging; matching not counted."""
        full = (self.counts[0],) * len(self.counts)
        return _encoder_macs(self.counts, self.shape) / _encoder_macs(full, self.shape)


@lru_cache(maxsize=1024)
def make_plan(spec: MergeSpec, shape: EncoderShape) -> MergePlan:
    """Check a request against an encoder and spread its removals over the layers.

    With keep_ratio, tokens_out is exactly max(1, round(keep_ratio * P)). With r, a layer removes at most half
    of its patch tokens, as in the papers. Raises PlanError, or UnknownMethod listing the known names.
    """
    if spec.method not in METHODS:
        raise UnknownMethod(spec.method, METHODS)
    method = METHODS[spec.method]
    alphas = alpha_schedule(spec.alpha, shape.num_layers)
    counts = tuple(n + shape.num_prefix for n in _patch_counts(spec, shape, method))
    steps = tuple(
        MergeStep(layer, r=before - after, alpha=alphas[layer] if method.needs_spatial else 1.0)
        if after < before
        else None
        for layer, (before, after) in enumerate(pairwise(counts))
    )
    prop_attn = method.prop_attn if spec.prop_attn is None else spec.prop_attn
    weighs = prop_attn and counts[-1] < counts[0]  # with nothing merged, every size is 1
    return MergePlan(spec, shape, steps, spec.method, weighs, _order(spec), counts)


def _patch_counts(spec: MergeSpec, shape: EncoderShape, method: MergeMethod) -> tuple[int, ...]:
    curve = inflection(spec.schedule)
    if not method.merges:
        _refuse_removal(spec)
        return (shape.patches,) * (shape.num_layers + 1)
    if spec.keep_ratio is not None and spec.r is None:
        return _counts_for_ratio(spec.keep_ratio, shape, removal_weights(shape.num_layers, curve))
    if spec.r is not None and spec.keep_ratio is None:
        return _counts_for_r(_removals(spec.r, shape.num_layers, curve), shape)
    raise PlanError("one_dial", "keep_ratio", f"{spec.method} needs exactly one of keep_ratio and r")


def _counts_for_ratio(keep_ratio: float, shape: EncoderShape, weights: tuple[float, ...]) -> tuple[int, ...]:
    """Follow the schedule's ideal curve as closely as halving allows, ending exactly on the target."""
    if not 0.0 < keep_ratio <= 1.0:
        raise PlanError("bad_keep_ratio", "keep_ratio", f"keep_ratio must lie in (0, 1], got {keep_ratio}")
    patches, layers = shape.patches, shape.num_layers
    target = max(1, round(keep_ratio * patches))
    least = -(-patches // 2**layers)
    if target < least:
        smallest = math.ceil(least / patches * 1e4) / 1e4
        raise PlanError(
            "keep_ratio_too_small",
            "keep_ratio",
            f"keep_ratio {keep_ratio} leaves {target} of {patches} tokens; {layers} layers, each removing at "
            f"most half, reach {least}: the smallest possible keep_ratio is {smallest}",
        )
    counts = [patches]
    for layer, share in enumerate(accumulate(weights), start=1):
        ideal = target if layer == layers else patches - round((patches - target) * share)
        most = min(counts[-1], target * 2 ** (layers - layer))  # above it the later layers could not finish
        counts.append(min(max(ideal, -(-counts[-1] // 2)), most))
    return tuple(counts)


def _counts_for_r(removals: tuple[int, ...], shape: EncoderShape) -> tuple[int, ...]:
    return tuple(accumulate(removals, lambda n, r: n - min(r, n // 2), initial=shape.patches))


def _removals(r: int | tuple[int, ...], num_layers: int, curve: float) -> tuple[int, ...]:
    if min((r,) if isinstance(r, int) else r, default=0) < 0:
        raise PlanError("bad_r", "r", "r must not be negative")
    if not isinstance(r, int) and len(r) > num_layers:
        raise PlanError("bad_r", "r", f"r has {len(r)} values for {num_layers} layers")
    if not isinstance(r, int) and curve != 0.0:
        raise PlanError("bad_schedule", "schedule", "a list of r is its own schedule: leave schedule out")
    return paper_schedule(r, num_layers, curve)


def _refuse_removal(spec: MergeSpec) -> None:
    for field, value in (("r", spec.r), ("keep_ratio", spec.keep_ratio)):
        if value is not None and (field == "r" or value != 1.0):
            raise PlanError("nothing_to_remove", field, f"{spec.method} removes nothing: leave {field} out")


def _order(spec: MergeSpec) -> Order:
    if spec.order not in ("raster", "merge"):
        raise PlanError("bad_order", "order", "order must be raster or merge")
    return spec.order


def _encoder_macs(counts: tuple[int, ...], shape: EncoderShape) -> int:
    """Sum 4NC^2 + 2N^2C for attention and 2NCM for the MLP, which runs on the tokens left after merging."""
    c, mlp = shape.hidden_size, shape.mlp_size
    assert c > 0 and mlp > 0, "flops_ratio needs the hidden and MLP widths of the encoder"
    return sum(4 * n * c * c + 2 * n * n * c + 2 * after * c * mlp for n, after in pairwise(counts))
