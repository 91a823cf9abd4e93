"""SAM under merging: as many windows as before, timm's own relative positions, the neck on the full grid."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.vlm.adapters import PATCH_PX, SAMS, pixels_for, tiny
from tests.vlm.grid_toy import CROP, crop_plan
from tosa import METHODS, MergeSpec, Tokens, make_plan
from vlm import adapt, encode, feature_map, tosa_encode

WINDOWED = [name for name in SAMS if adapt(tiny(name)).shape.window]
GRID_METHODS = [name for name, method in METHODS.items() if method.merges and method.keeps_grid]


def windows(tokens: Tokens) -> tuple[int, int]:
    assert tokens.grid is not None and tokens.window is not None
    return -(-tokens.grid[0] // tokens.window[0]), -(-tokens.grid[1] // tokens.window[1])


@pytest.mark.parametrize("name", SAMS)
def test_the_shape_says_what_the_planner_must_know(name: str) -> None:
    shape = adapt(tiny(name)).shape
    assert shape.requires_grid
    assert shape.global_layers == ((1,) if name in WINDOWED else (0, 1, 2))


@pytest.mark.parametrize("r_hw", [(1, 1), (2, 2)])
@pytest.mark.parametrize("name", WINDOWED)
@torch.inference_mode()
def test_merged_windows_run_as_timm_runs_smaller_ones(name: str, r_hw: tuple[int, int]) -> None:
    model, trace = tiny(name), list[Tokens]()
    adapter = adapt(model)
    entry = Tokens.start(adapter.embed(pixels_for(name)), adapter.shape.grid, window=adapter.shape.window)
    encode(adapter, pixels_for(name), crop_plan(adapter.shape, r_hw), trace=trace, method=CROP)
    first, second, last = trace
    assert windows(first) == windows(second) == windows(last) == windows(entry)
    assert last.grid != first.grid and last.grid == second.grid
    assert last.grid is not None and last.window is not None
    block = copy.deepcopy(model.blocks[2])
    block.window_size = last.window[0]
    theirs = block(second.x.unflatten(1, last.grid)).flatten(1, 2)
    torch.testing.assert_close(last.x, theirs, rtol=0, atol=1e-5)
    if r_hw[0] > 1:  # with windows as before, timm gives something else
        unchanged = model.blocks[2](second.x.unflatten(1, last.grid)).flatten(1, 2)
        assert not torch.allclose(last.x, unchanged, atol=1e-3)


@pytest.mark.parametrize("name", WINDOWED)
@torch.inference_mode()
def test_a_window_attends_to_itself_only(name: str) -> None:
    """Also where windows are not square after merging, and where the last ones are filled up."""
    block = adapt(tiny(name)).blocks[0]
    x = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(6))
    tokens = Tokens.start(x, (5, 4), window=(2, 3))
    changed = x.clone()
    changed[0, 7] += 1  # row 1, column 3: the window of rows 0 and 1, columns 3 to 5
    before, after = (block.attend(version, tokens, None)[0] for version in (x, changed))
    moved = (before - after).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [3, 7]


@pytest.mark.parametrize("name", SAMS)
@torch.inference_mode()
def test_proportional_attention_weighs_keys_inside_their_window(name: str) -> None:
    adapter = adapt(tiny(name))
    shape = adapter.shape
    x = torch.randn(1, shape.patches, 32, generator=torch.Generator().manual_seed(6))
    tokens = Tokens.start(x, shape.grid, window=shape.window)
    for block in adapter.blocks:
        plain = block.attend(x, tokens, None)[0]
        ones = torch.ones(1, shape.patches)
        torch.testing.assert_close(block.attend(x, tokens, ones)[0], plain, rtol=0, atol=1e-5)
        heavy = ones.clone()
        heavy[0, 0] = 1e9  # now all of its window sees this token alone
        seen = block.attend(x, tokens, heavy)[0]
        mates = (seen - plain).abs().amax(dim=(0, 2)) > 1e-4
        window = shape.window if block is not adapter.blocks[1] and shape.window else shape.grid
        expected = [r * shape.grid[1] + c for r in range(window[0]) for c in range(window[1])]
        assert mates.nonzero().flatten().tolist() == expected
        together = seen[0, expected]
        torch.testing.assert_close(together, together[:1].expand_as(together), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_what_fills_a_window_up_weighs_as_one_patch() -> None:
    """Doubling every size leaves whole windows alone, and halves the weight of the zeros in cut ones."""
    for name, equal in (("sam, whole windows", True), ("sam, cut windows", False)):
        adapter = adapt(tiny(name))
        tokens = Tokens.start(
            adapter.embed(pixels_for(name)), adapter.shape.grid, window=adapter.shape.window
        )
        plain, doubled = (adapter.blocks[0].attend(tokens.x, tokens, s * tokens.size)[0] for s in (1, 2))
        assert torch.allclose(plain, doubled, rtol=0, atol=1e-5) == equal


@pytest.mark.parametrize("name", SAMS)
@torch.inference_mode()
def test_the_feature_map_equals_the_forward_of_the_library(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    ours = feature_map(model, pixels, MergeSpec())
    torch.testing.assert_close(ours, model.forward_features(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size_patches", [(5, 8), (3, 3)])
@torch.inference_mode()
def test_images_of_another_size_run_as_in_the_library(size_patches: tuple[int, int]) -> None:
    model = tiny("sam, whole windows")
    height, width = (side * PATCH_PX for side in size_patches)
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(7))
    ours = feature_map(model, pixels, MergeSpec())
    torch.testing.assert_close(ours, model.forward_features(pixels), rtol=0, atol=1e-5)
    assert tosa_encode(model, pixels, MergeSpec()).grid == size_patches


@pytest.mark.parametrize("method", GRID_METHODS)
@pytest.mark.parametrize("name", SAMS)
@torch.inference_mode()
def test_grid_methods_keep_the_windows_and_come_back_on_the_full_grid(name: str, method: str) -> None:
    model, pixels, trace = tiny(name), pixels_for(name), list[Tokens]()
    adapter = adapt(model)
    spec = MergeSpec(method, keep_ratio=0.5, options=())
    plan = make_plan(spec, adapter.shape)
    tokens = encode(adapter, pixels, plan, torch.ones(2, adapter.shape.patches, 4), trace=trace)
    assert plan.grids is not None
    assert [left.grid for left in trace] == list(plan.grids[1:])
    if adapter.shape.window is not None:
        assert len({windows(left) for left in trace}) == 1
        assert tokens.window != adapter.shape.window
    dense = feature_map(model, pixels, spec, torch.ones(2, adapter.shape.patches, 4))
    full = model.forward_features(pixels)
    assert dense.shape == full.shape
    assert not torch.allclose(dense, full, atol=1e-3)


def test_a_cut_window_loses_its_share() -> None:
    name = "sam, cut windows"
    adapter = adapt(tiny(name))
    plan = crop_plan(adapter.shape, (2, 1))
    with torch.inference_mode():
        tokens = encode(adapter, pixels_for(name), plan, method=CROP)
    assert tokens.grid == (4, 5) and tokens.window == (
        2,
        3,
    )  # 7 rows: 4 -> 2 and 3 -> 2; 6 columns: 4 -> 3, 2
    assert sorted(set(tokens.source[0].tolist())) == list(range(20))
