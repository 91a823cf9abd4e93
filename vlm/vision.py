"""The vision encoder: our own loop over a loaded vision transformer, which only holds the weights.

The loop patches nothing and keeps no state on the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from tosa import (
    METHODS,
    MergeMethod,
    MergePlan,
    MergeSpec,
    MergeStep,
    Tokens,
    by_window,
    make_plan,
    merge_step,
    raster_order,
    recover,
    sizes_of_rows,
)
from vlm.adapters import Block, ViTAdapter, adapt
from vlm.adapters.hooks import call, require_untouched
from vlm.model import VlmError


def encode(
    adapter: ViTAdapter | Any,
    pixel_values: Tensor,
    plan: MergePlan,
    spatial: Tensor | None = None,
    *,
    track_source: bool = True,
    trace: list[Tokens] | None = None,
    method: MergeMethod | None = None,
    between_layers: Callable[[], None] | None = None,
) -> Tokens:
    """Run the layers of `plan` over the images, merging tokens as the plan's method does.

    adapter: a loaded model that `adapt` knows, or what `adapt` made of it. pixel_values: [B, 3, H, W],
    normalised; for Qwen's towers also the flat patches of their processor, of B images of one size.
    spatial: [B, P, S], for methods that need it (P = patches). track_source: follow every patch
    to its token, which raster order does anyway once the grid is gone. trace: a list that gets the tokens
    every layer leaves behind. method: replaces the plan's own, for one that is not in METHODS.
    between_layers: called before every layer, so that a caller may stop the work by raising.
    Returns tokens with x [B, N, C] as the last layer that runs returns it, before any final norm;
    N = plan.tokens_out and the prefix. Where patches merge in cells, the rows of a cell are side by side
    (`tosa.cells_of`). Differentiable; callers that only infer wrap it in
    `torch.inference_mode()`. Dropout on attention weights is never applied. Raises VlmError.
    """
    leaves = None if trace is None else lambda layer, tokens: trace.append(tokens)
    return run_layers(
        adapter,
        pixel_values,
        plan,
        spatial,
        track_source=track_source,
        leaves=leaves,
        method=method,
        between_layers=between_layers,
    )


def run_layers(
    adapter: ViTAdapter | Any,
    pixel_values: Tensor,
    plan: MergePlan,
    spatial: Tensor | None = None,
    *,
    track_source: bool = True,
    leaves: Callable[[int, Tokens], None] | None = None,
    method: MergeMethod | None = None,
    between_layers: Callable[[], None] | None = None,
) -> Tokens:
    """Do what `encode` does; leaves(layer, tokens) gets the tokens that each layer leaves behind."""
    if not isinstance(adapter, ViTAdapter):
        adapter = adapt(adapter, image_size=_image_size(pixel_values))
    if not adapter.takes_patches or pixel_values.ndim == 4:
        require_images(pixel_values)
    require_untouched(adapter.passed_by)
    _require_fit(adapter, plan)
    _require_spatial(adapter, plan, _batch(adapter, pixel_values), spatial)
    method = method or METHODS[plan.method]
    moved = plan.tokens_out < plan.tokens_in or plan.regions is not None
    scattered = plan.order == "raster" and not method.keeps_grid and moved
    tokens = _start(adapter, pixel_values, spatial, track_source or scattered)
    if plan.regions is not None:
        tokens = by_window(tokens)
    for layer, (block, step) in enumerate(zip(adapter.blocks, plan.steps, strict=False)):
        if between_layers is not None:
            between_layers()
        if step is not None and method.site == "before_block":
            tokens = merge_step(method, tokens, tokens.x, step)
        tokens = _run_layer(block, tokens, step, method, plan.prop_attn)
        if leaves is not None:
            leaves(layer, tokens)
    return raster_order(tokens) if plan.order == "raster" else tokens


def require_images(pixel_values: Tensor) -> None:
    """Refuse what is no batch of normalised images. Raises VlmError (wrong_images)."""
    if pixel_values.ndim != 4 or not pixel_values.is_floating_point():
        got = f"{str(pixel_values.dtype).removeprefix('torch.')} of shape {list(pixel_values.shape)}"
        raise VlmError("wrong_images", f"images are normalised floats [B, 3, H, W], but got {got}")


def _run_layer(
    block: Block, tokens: Tokens, step: MergeStep | None, method: MergeMethod, prop_attn: bool
) -> Tokens:
    """Run one layer on x, with the hooks of the library's own layer around it."""
    forward = partial(_run_parts, block, tokens, step, method, prop_attn)
    site = block.layer
    if site is None:
        return forward(tokens.x)[1]
    if not site.on_grid:
        x, left = call(site, forward, tokens.x)
        return left if x is left.x else replace(left, x=x)
    grid = tokens.grid
    assert grid is not None, "this layer needs tokens on a grid"

    def on_grid(x: Tensor) -> tuple[Tensor, Tokens]:
        left = forward(x.flatten(1, 2))[1]
        return left.x.unflatten(1, grid), left

    x, left = call(site, on_grid, tokens.x.unflatten(1, grid))
    return replace(left, x=x.flatten(1, 2))


def _run_parts(
    block: Block, tokens: Tokens, step: MergeStep | None, method: MergeMethod, prop_attn: bool, x: Tensor
) -> tuple[Tensor, Tokens]:
    """Run the four parts of a layer on x, and merge between its branches; return x and the tokens."""
    size = sizes_of_rows(tokens) if prop_attn and tokens.is_weighted else None
    attended, keys = block.attend(block.norm1(x), tokens, size)
    tokens = replace(tokens, x=x + attended)
    if step is not None and method.site == "before_mlp":
        tokens = merge_step(method, tokens, keys.mean(dim=1), step)
    tokens = replace(tokens, x=tokens.x + block.mlp(block.norm2(tokens.x)))
    return tokens.x, tokens


def tosa_encode(
    model: ViTAdapter | Any,
    pixel_values: Tensor,
    spec: MergeSpec,
    spatial: Tensor | None = None,
    *,
    feature_layer: int = -1,
) -> Tokens:
    """Encode images with merging: `tosa_encode(model, pixels, MergeSpec("tome", keep_ratio=0.5))`.

    With method "none", x equals timm's `model.forward_features(pixels)` and the last_hidden_state of
    transformers, final norm included; SAM's tokens are those before its neck (see `feature_map`).
    feature_layer: -2 or another hidden state stops there, before any norm; of an adapter, `adapt` chose it.
    pixel_values: [B, 3, H, W]; spatial: [B, P, S]. Raises PlanError and VlmError.
    """
    adapter = _adapter(model, pixel_values, feature_layer)
    tokens = encode(adapter, pixel_values, make_plan(spec, adapter.shape), spatial)
    return replace(tokens, x=adapter.finish(tokens.x))


def feature_map(
    model: ViTAdapter | Any, pixel_values: Tensor, spec: MergeSpec, spatial: Tensor | None = None
) -> Tensor:
    """Encode images with merging and bring the features back on the full patch grid, for dense heads.

    Returns [B, C, rows, columns] behind the final norm, without prefix tokens; for SAM behind its neck, which
    with method "none" is `model.forward_features(pixels)`; for an adapter of an earlier one, that state.
    Arguments and errors as in `tosa_encode`.
    """
    adapter = _adapter(model, pixel_values)
    tokens = encode(adapter, pixel_values, make_plan(spec, adapter.shape), spatial)
    dense = adapter.finish(recover(tokens)).mT.unflatten(2, adapter.shape.grid)
    return dense if adapter.neck is None else adapter.neck(dense)


def _adapter(model: ViTAdapter | Any, pixel_values: Tensor, feature_layer: int = -1) -> ViTAdapter:
    if isinstance(model, ViTAdapter):
        if feature_layer != -1:
            message = "a ViTAdapter was adapted for its layers already: give feature_layer to adapt instead"
            raise VlmError("wrong_feature_layer", message)
        return model
    return adapt(model, feature_layer, _image_size(pixel_values))


def _image_size(pixel_values: Tensor) -> tuple[int, int] | None:
    """Return (height, width) in px; flat patches do not say it."""
    return (pixel_values.shape[-2], pixel_values.shape[-1]) if pixel_values.ndim == 4 else None


def _batch(adapter: ViTAdapter, pixel_values: Tensor) -> int:
    """Count the images: those of flat patches [B * P, C] by the patches of one."""
    return pixel_values.shape[0] // (adapter.shape.patches if pixel_values.ndim == 2 else 1)


def _start(adapter: ViTAdapter, pixel_values: Tensor, spatial: Tensor | None, track_source: bool) -> Tokens:
    shape = adapter.shape
    return Tokens.start(
        adapter.embed(pixel_values),
        shape.grid,
        shape.num_prefix,
        spatial,
        window=shape.window,
        track_source=track_source,
        track_position=shape.rotary or adapter.relative or shape.cell != (1, 1),
        cell=shape.cell,
    )


def _require_spatial(adapter: ViTAdapter, plan: MergePlan, batch: int, spatial: Tensor | None) -> None:
    """Refuse missing spatial tokens, and those of other images or another grid; they may have a prefix."""
    if spatial is None:
        if plan.needs_spatial:
            message = f"{plan.method} needs spatial tokens: give spatial=spatial_tokens(z)"
            raise VlmError("missing_spatial", message)
        return
    shape, got = adapter.shape, tuple(spatial.shape)
    counts = shape.patches, shape.patches + shape.num_prefix
    if len(got) != 3 or got[0] != batch or got[1] not in counts:
        message = f"spatial tokens must be [{batch}, {shape.patches}, S], got {list(got)}"
        raise VlmError("wrong_spatial", message)


def _require_fit(adapter: ViTAdapter, plan: MergePlan) -> None:
    """Refuse a plan made for another encoder; names, widths and the number of layers left over may differ."""
    ours, theirs = (
        (s.grid, s.num_prefix, s.window, s.rotary, s.requires_grid, s.cell)
        for s in (adapter.shape, plan.shape)
    )
    if ours != theirs or len(plan.steps) > len(adapter.blocks):
        message = f"the plan was made for {plan.shape}, which does not fit {adapter.shape}"
        raise VlmError("wrong_plan", message)
