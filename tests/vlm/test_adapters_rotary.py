"""Rotary positions under merging: every survivor keeps its own place, a merged grid spans the same extent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.vlm.adapters import FAMILIES, LAYERS, pixels_for, tiny
from tests.vlm.grid_toy import CROP, crop_plan
from tests.vlm.places import require_own_places, tokens_of
from tosa import METHODS, MergeSpec, Tokens, make_plan
from vlm import adapt, encode, tosa_encode
from vlm.adapters.rotary import Rotary

ROTARY = [name for name in FAMILIES if adapt(tiny(name)).shape.rotary]
TIMM_ROTARY = [name for name in ROTARY if hasattr(tiny(name), "rope")]
INDEXED = [
    name for name in TIMM_ROTARY if "dinov3" not in name
]  # places counted in patches, not from -1 to 1
FREE = [name for name, method in METHODS.items() if method.merges and not method.keeps_grid]


def places(name: str) -> Rotary:
    return Rotary(tiny(name).rope, (6, 6))


def test_the_families_with_rotary_positions_are_known() -> None:
    assert len(ROTARY) == 14
    assert {"dinov3", "eva02", "mixed rope", "naflex axial", "hf dinov3"} < set(ROTARY)
    assert set(ROTARY) - set(TIMM_ROTARY) == {"hf dinov3", "hf dinov3 gated"}


@pytest.mark.parametrize("method", FREE)
@pytest.mark.parametrize("name", ROTARY)
@torch.inference_mode()
def test_a_plan_that_merges_nothing_is_bit_equal(name: str, method: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    spatial = torch.ones(2, 36, 4)
    tokens = tosa_encode(model, pixels, MergeSpec(method, keep_ratio=1.0), spatial)
    assert torch.equal(tokens.x, FAMILIES[name].forward(model, pixels))


@pytest.mark.parametrize("name", ROTARY)
def test_tokens_in_any_order_are_rotated_by_their_own_place(name: str) -> None:
    require_own_places(name)


@pytest.mark.parametrize("name", TIMM_ROTARY)
@torch.inference_mode()
def test_merging_gathers_the_rows_of_the_survivors(name: str) -> None:
    tokens = tokens_of(name)
    survivors = torch.tensor([[3, 35, 0], [7, 7, 12]])
    position = torch.cat([torch.zeros(2, tokens.num_prefix, dtype=torch.int64), survivors], dim=1)
    for layer in range(LAYERS):
        entry = places(name).table(tokens, layer)  # [36, 2D] or [heads, 36, 2D]
        rows = places(name).table(replace(tokens, grid=None, position=position), layer)
        for image in range(2):
            expected = entry[..., survivors[image], :]
            assert torch.equal(rows[image], expected if entry.ndim == 3 else expected[None])


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("method", FREE)
@torch.inference_mode()
def test_a_token_keeps_the_place_of_a_patch_it_holds(name: str, method: str) -> None:
    adapter = adapt(tiny(name))
    plan = make_plan(MergeSpec(method, keep_ratio=0.5), adapter.shape)
    tokens = encode(adapter, pixels_for(name), plan, torch.ones(2, 36, 4))
    assert tokens.position is not None
    index = torch.arange(tokens.num_prefix, tokens.x.shape[1])
    for source, position in zip(tokens.source, tokens.position, strict=True):
        assert torch.equal(source[position[tokens.num_prefix :]], index)


@pytest.mark.parametrize("name", INDEXED)
@torch.inference_mode()
def test_a_merged_grid_is_stretched_over_the_entry_grid(name: str) -> None:
    """Six rows merged to three stand where rows 0, 2 and 4 stood; columns stay.

    Where the library counts rows from 1 (Perception Encoder), they stand on the last of the merged.
    """
    first = int(getattr(places(name).module, "grid_offset", 0))
    for layer in range(LAYERS):
        entry = places(name).table(tokens_of(name), layer).unflatten(-2, (6, 6))
        merged = places(name).table(tokens_of(name, grid=(3, 6)), layer).unflatten(-2, (3, 6))
        torch.testing.assert_close(merged, entry[..., first::2, :, :])
        fewer = places(name).table(tokens_of(name, grid=(6, 2)), layer).unflatten(-2, (6, 2))
        torch.testing.assert_close(fewer, entry[..., 2 * first :: 3, :])


@pytest.mark.parametrize("grid", [(6, 6), (4, 5), (1, 6)])
@torch.inference_mode()
def test_dinov3_lays_its_coordinates_out_over_any_grid(grid: tuple[int, int]) -> None:
    """The centres of the cells, from -1 to 1 along each axis, whatever the number of rows and columns."""
    row, column = (2 * (torch.arange(side) + 0.5) / side - 1 for side in grid)
    place = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).flatten(0, 1)
    period = 100 ** (torch.arange(4) / 4)  # heads of 16: a quarter of the channels for each of two axes
    angle = (2 * torch.pi * place[..., None] / period).flatten(1).repeat(1, 2)
    table = places("dinov3").table(tokens_of("dinov3", grid=grid), 0)
    torch.testing.assert_close(table, torch.cat([angle.sin(), angle.cos()], dim=-1))


@pytest.mark.parametrize("name", ROTARY)
@torch.inference_mode()
def test_a_grid_method_runs_on_the_merged_grid(name: str) -> None:
    adapter, pixels, trace = adapt(tiny(name)), pixels_for(name), list[Tokens]()
    plan = crop_plan(adapter.shape, (2, 1))
    tokens = encode(adapter, pixels, plan, trace=trace, method=CROP)
    assert [left.grid for left in trace] == [(6, 6), (4, 5), (4, 5)]
    assert tokens.x.shape[1] == adapter.shape.num_prefix + 20
    assert tokens.x.isfinite().all()


def test_a_table_made_for_inference_serves_training_too() -> None:
    adapter, pixels = adapt(tiny("dinov3")), pixels_for("dinov3")
    with torch.inference_mode():
        tosa_encode(adapter, pixels, MergeSpec("tome", keep_ratio=0.5))
    tosa_encode(adapter, pixels, MergeSpec("tome", keep_ratio=0.5)).x.sum().backward()
    tiny("dinov3").zero_grad(set_to_none=True)
