"""Say what will work with a checkpoint, from its settings alone: no weights are read or downloaded.

Parameters are counted on torch's meta device, visual tokens and savings follow from the plan of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from tosa import METHODS, MergeSpec, PlanError, make_plan
from vlm.description import READER, Description, describe
from vlm.dtypes import said_dtype, short
from vlm.families import Family, Layout
from vlm.families.layout import Grid, Saving, Size
from vlm.lora import base_of, is_adapter, require_no_adapter
from vlm.quantised import METHODS as QUANTISED
from vlm.quantised import bits_of
from vlm.weights import empty_model

PICTURE: Size = (480, 640)
"""Height and width in px of the picture that tokens are counted for."""
FRAMES = 8
KEEP_RATIO = 0.25


@dataclass(frozen=True)
class MethodCheck:
    """What one method leaves and saves at KEEP_RATIO; refusal: why it does not run, and what would do."""

    method: str
    tokens: int | None
    vit_flops_ratio: float | None
    saves: tuple[Saving, ...]
    refusal: str | None


@dataclass(frozen=True)
class ViewsCheck:
    """What one way of seeing makes of the picture, or of FRAMES frames. views: its names in requests."""

    views: tuple[str, ...]
    count: int
    grid: Grid
    tokens: int
    methods: tuple[MethodCheck, ...]


@dataclass(frozen=True)
class ModelCheck:
    """What will work with a checkpoint.

    dtype: "weights" where only the weights say it. weight_bytes: in memory; None if the bits are not known.
    """

    id: str
    family: str
    model_class: str
    tower: str
    tower_layers: int
    cell: Grid
    dtype: str
    quantised: str | None
    adapter_of: str | None
    parameters: int
    weight_bytes: int | None
    default_views: str
    views: tuple[ViewsCheck, ...]


def check(id_or_path: str | Path, *, require_manifest: bool = False) -> ModelCheck:
    """Describe a checkpoint by what its settings say. Raises VlmError as `load_vlm` does before weights."""
    source = str(id_or_path)
    folder, _ = READER.find(source, require_manifest)
    base = None
    if is_adapter(folder):
        base = base_of(source, folder)
        folder, _ = READER.find(base, require_manifest)
    require_no_adapter(base or source, folder)
    found = describe(base or source, folder)
    parameters = READER.or_broken(source, lambda: _parameters(found))
    dtype = said_dtype(found.config)
    if found.quantised is not None:
        dtype = QUANTISED[found.quantised].dtype or dtype
    return ModelCheck(
        id=source,
        family=found.config.model_type,
        model_class=found.family.model_class,
        tower=found.family.vision.model_type,
        tower_layers=found.shape.num_layers,
        cell=found.family.cell,
        dtype="weights" if dtype is None else short(dtype),
        quantised=found.quantised,
        adapter_of=base,
        parameters=parameters,
        weight_bytes=_weight_bytes(found, parameters, dtype),
        default_views=found.default_views,
        views=READER.or_broken(source, lambda: tuple(_views(found.family))),
    )


def _parameters(found: Description) -> int:
    """Count the parameters, those that are tied once."""
    return sum(each.numel() for each in empty_model(found).parameters())


def _weight_bytes(found: Description, parameters: int, dtype: torch.dtype | None) -> int | None:
    if found.quantised is not None and not QUANTISED[found.quantised].dense:
        bits = bits_of(found.quantised, found.raw)
        return None if bits is None else parameters * bits // 8
    return parameters * (dtype or torch.float32).itemsize


def _views(family: Family) -> Iterator[ViewsCheck]:
    """Yield what the picture becomes for all views that can be asked for; equal ones together."""
    named: dict[Layout, list[str]] = {}
    for views in ("auto", *family.offered):
        sizes = [PICTURE] * (FRAMES if views == "video" else 1)
        (layout,) = family.layouts(sizes, views)
        named.setdefault(layout, []).append(views)
    for layout, names in named.items():
        plan = make_plan(MergeSpec(), family.shape(layout))
        tokens = sum(family.counts(layout, plan))
        methods = tuple(_method(family, layout, name) for name, each in METHODS.items() if each.merges)
        yield ViewsCheck(tuple(names), len(layout.views), layout.grid, tokens, methods)


def _method(family: Family, layout: Layout, name: str) -> MethodCheck:
    try:
        plan = make_plan(MergeSpec(name, keep_ratio=KEEP_RATIO), family.shape(layout))
    except PlanError as error:
        return MethodCheck(name, None, None, (), str(error))
    tokens = sum(family.counts(layout, plan))
    return MethodCheck(name, tokens, round(plan.flops_ratio, 4), family.saves(layout, plan), None)
