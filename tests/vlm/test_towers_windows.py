"""Qwen2.5-VL's windows: nothing is seen or merged across them, and they are as many as before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.vlm.towers import adapter_for, pixels_for, scene_for, tiny
from tosa import METHODS, MergeSpec, MergeStep, PlanError, Tokens, by_window, make_plan, merge_step
from tosa.grid import Grid, regions, shrink_regions
from tosa.windows import window_order
from vlm import encode, tosa_encode
from vlm.adapters.axial import Places

MERGING = [name for name, method in METHODS.items() if method.merges]
FREE = [name for name in MERGING if not METHODS[name].keeps_grid]
KEEPING = [name for name in MERGING if METHODS[name].keeps_grid]
CELLS = (6, 10)  # 12 x 20 patches: windows of 4 x 4 cells, cut to 2 rows and to 2 columns
WINDOW_OF = torch.tensor([[row // 4 * 3 + column // 4 for column in range(10)] for row in range(6)]).flatten()


def start(x: Tensor | None = None, window: Grid = (8, 8)) -> Tokens:
    if x is None:
        x = torch.randn(2, 240, 32, generator=torch.Generator().manual_seed(6))
    return Tokens.start(x, (12, 20), window=window, cell=(2, 2), track_position=True)


def test_the_shape_says_where_the_windows_are() -> None:
    shape = adapter_for("qwen2.5").shape
    assert (shape.grid, shape.window, shape.cell) == ((12, 20), (8, 8), (2, 2))
    assert (shape.cells, shape.cell_window) == (CELLS, (4, 4))
    assert shape.global_layers == (2,) and not shape.pads_windows and not shape.requires_grid
    assert adapter_for("qwen2.5, global").shape.window is None


def test_windows_are_grouped_by_their_size() -> None:
    assert regions(CELLS, (4, 4)) == ((2, 16), (1, 8), (2, 8), (1, 4))
    assert regions((8, 8), (4, 4)) == ((4, 16),)
    assert regions((3, 5), (4, 4)) == ((1, 12), (1, 3))
    assert shrink_regions(((2, 16), (1, 8), (1, 3)), 4) == ((2, 4), (1, 2), (1, 1))
    assert shrink_regions(((2, 16), (1, 8), (1, 3)), 15) == ((2, 15), (1, 8), (1, 3))
    order = window_order(CELLS, (4, 4), torch.device("cpu"))
    assert sorted(order.tolist()) == list(range(60))
    windows = [set(part.tolist()) for part in WINDOW_OF[order].split([16, 16, 8, 8, 8, 4])]
    assert windows == [{0}, {1}, {2}, {3}, {4}, {5}]


@pytest.mark.parametrize("ordered", [False, True], ids=["on the grid", "by window"])
@torch.inference_mode()
def test_a_window_attends_to_itself_only(ordered: bool) -> None:
    adapter, tokens = adapter_for("qwen2.5"), start()
    changed = tokens.x.clone()
    changed[:, 4 * 33] += 1  # a slot of cell 33: row 3, column 3, in the first window
    for layer, block in enumerate(adapter.blocks):
        results = []
        for x in (tokens.x, changed):
            given = by_window(start(x)) if ordered else start(x)
            attended, keys = block.attend(given.x, given, None)
            assert keys.shape == (2, 2, 240, 16)
            results.append(attended)
        moved = ((results[0] - results[1]).abs().amax(dim=2) > 1e-6)[0].unflatten(0, (60, 4)).any(1)
        order = window_order(CELLS, (4, 4), moved.device) if ordered else torch.arange(60)
        seen = set(WINDOW_OF[order][moved].tolist())
        assert seen == ({0} if layer != 2 else set(range(6)))


@torch.inference_mode()
def test_the_order_of_the_tokens_does_not_matter() -> None:
    """On the grid or window after window: the same attention, and keys that belong to their rows."""
    tokens = start()
    ordered = by_window(tokens)
    order = window_order(CELLS, (4, 4), tokens.x.device)
    rows = (order[:, None] * 4 + torch.arange(4)).flatten()
    assert torch.equal(ordered.x, tokens.x[:, rows])
    assert ordered.position is not None and torch.equal(ordered.position[0], order)
    assert torch.equal(order[ordered.source[0]], torch.arange(60))
    size = 1 + torch.arange(240.0).expand(2, -1)
    for block in adapter_for("qwen2.5").blocks:
        plain, keys = block.attend(tokens.x, tokens, size)
        by_windows, keys_by_window = block.attend(ordered.x, ordered, size[:, rows])
        torch.testing.assert_close(by_windows, plain[:, rows], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(keys_by_window, keys[:, :, rows], rtol=1e-5, atol=1e-5)


def test_ordering_by_window_needs_a_grid_with_windows() -> None:
    with pytest.raises(ValueError, match="tokens on a grid with windows"):
        by_window(replace(start(), window=None))
    with pytest.raises(ValueError, match="tokens on a grid with windows"):
        by_window(by_window(start()))


@pytest.mark.parametrize("name", FREE)
@torch.inference_mode()
def test_merging_inside_windows_equals_merging_each_window_alone(name: str) -> None:
    """Two steps; every window is also merged as an image of its own."""
    method, scene = METHODS[name], scene_for("qwen2.5", (12, 20))
    x = torch.randn(2, 240, 32, generator=torch.Generator().manual_seed(7))
    keys = torch.randn(2, 240, 16, generator=torch.Generator().manual_seed(8))
    first = by_window(Tokens.start(x, (12, 20), 0, scene, (8, 8), track_position=True, cell=(2, 2)))
    rows = (window_order(CELLS, (4, 4), x.device)[:, None] * 4 + torch.arange(4)).flatten()
    step = MergeStep(3, r=6, alpha=0.5, num_layers=4, kept=(10, 5, 5, 3))
    together = merge_step(method, first, keys[:, rows], step)
    assert together.regions == ((2, 10), (1, 5), (2, 5), (1, 3))
    offset, begin = 0, 0
    assert first.regions is not None and together.regions is not None
    for (number, before), (_, after) in zip(first.regions, together.regions, strict=True):
        for _ in range(number):
            part = slice(begin * 4, (begin + before) * 4)
            assert first.spatial is not None and together.spatial is not None
            alone = Tokens.start(first.x[:, part], (before * 2, 2), cell=(2, 2), track_position=True)
            alone = replace(alone, spatial=first.spatial[:, begin : begin + before])
            alone = merge_step(method, alone, keys[:, rows][:, part], replace(step, r=before - after))
            mine = together.x[:, offset * 4 : (offset + after) * 4]
            torch.testing.assert_close(mine, alone.x, rtol=1e-5, atol=1e-6)
            assert torch.equal(together.size[:, offset : offset + after], alone.size)
            torch.testing.assert_close(together.spatial[:, offset : offset + after], alone.spatial)
            order = window_order(CELLS, (4, 4), x.device)[begin : begin + before]
            expected = torch.where(alone.source < 0, -1, alone.source + offset)
            assert torch.equal(together.source[:, order], expected)
            offset, begin = offset + after, begin + before


@pytest.mark.parametrize("name", FREE)
@torch.inference_mode()
def test_no_token_holds_cells_of_two_windows(name: str) -> None:
    adapter, pixels = adapter_for("qwen2.5"), pixels_for("qwen2.5")
    plan = make_plan(MergeSpec(name, keep_ratio=0.25), adapter.shape)
    trace: list[Tokens] = []
    tokens = encode(adapter, pixels, plan, scene_for("qwen2.5"), trace=trace)
    assert plan.regions is not None and [left.regions for left in trace] == list(plan.regions[1:])
    assert plan.cells_out == 15 == tokens.size.shape[1]
    for image in range(2):
        for token in range(tokens.size.shape[1]):
            assert len(WINDOW_OF[tokens.source[image] == token].unique()) == 1
    firsts = [tokens.source[0].tolist().index(token) for token in range(15)]
    assert firsts == sorted(firsts)  # raster order at the end, whatever the windows


@pytest.mark.parametrize("name", FREE)
@torch.inference_mode()
def test_a_plan_that_merges_nothing_equals_none(name: str) -> None:
    adapter, pixels = adapter_for("qwen2.5"), pixels_for("qwen2.5")
    plain = tosa_encode(adapter, pixels, MergeSpec()).x
    tokens = tosa_encode(adapter, pixels, MergeSpec(name, keep_ratio=1.0), scene_for("qwen2.5"))
    torch.testing.assert_close(tokens.x, plain, rtol=1e-4, atol=1e-4)
    assert torch.equal(tokens.source, torch.arange(60).expand(2, -1))


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("keep_ratio", [0.9, 0.5, 0.25])
def test_a_plan_keeps_the_same_share_of_every_window(name: str, keep_ratio: float) -> None:
    shape = replace(adapter_for("qwen2.5", (34, 46)).shape, num_layers=16, global_layers=(7, 15))
    plan = make_plan(MergeSpec(name, keep_ratio=keep_ratio), shape)
    assert plan.regions is not None and plan.cells_in == 17 * 23
    for before, after in zip(plan.regions, plan.regions[1:], strict=False):
        assert [number for number, _ in before] == [number for number, _ in after]
        assert all(0 < left <= held <= 2 * left for (_, held), (_, left) in zip(before, after, strict=True))
    assert abs(plan.cells_out / plan.cells_in - keep_ratio) < 0.04  # 20 windows, so that one token is 0.05
    assert plan.counts == tuple(4 * sum(n * m for n, m in each) for each in plan.regions)
    steps = [0 if step is None else step.r for step in plan.steps]
    assert steps == [a[0][1] - b[0][1] for a, b in zip(plan.regions, plan.regions[1:], strict=False)]


def test_r_is_of_each_window() -> None:
    plan = make_plan(MergeSpec("tome", r=2), replace(adapter_for("qwen2.5").shape, num_layers=2))
    assert plan.regions == (
        ((2, 16), (1, 8), (2, 8), (1, 4)),
        ((2, 14), (1, 7), (2, 7), (1, 4)),
        ((2, 12), (1, 6), (2, 6), (1, 3)),
    )


def test_flops_count_the_keys_of_each_window() -> None:
    shape = replace(adapter_for("qwen2.5").shape, num_layers=1, global_layers=(), hidden_size=8, mlp_size=10)
    windows = (64, 64, 32, 32, 32, 16)  # patches
    attention = sum(n * (4 * 64 + 2 * n * 8) for n in windows)
    assert make_plan(MergeSpec(), shape).flops() == 2 * (attention + 2 * 240 * 80)
    padded = replace(shape, pads_windows=True)
    assert make_plan(MergeSpec(), padded).flops() > make_plan(MergeSpec(), shape).flops()
    merged = make_plan(MergeSpec("tome", r=4), shape)
    assert merged.flops() == 2 * (attention + 2 * merged.counts[1] * 80)


def test_the_smallest_share_is_one_cell_a_window() -> None:
    shape = replace(adapter_for("qwen2.5").shape, num_layers=16)
    with pytest.raises(PlanError, match="leaves 1 of 60 cells of 2 x 2 patches, but tome") as error:
        make_plan(MergeSpec("tome", keep_ratio=0.02), shape)
    assert error.value.code == "keep_ratio_too_small" and error.value.limit is not None
    assert make_plan(MergeSpec("tome", keep_ratio=error.value.limit), shape).cells_out == 6


@pytest.mark.parametrize("name", KEEPING)
@torch.inference_mode()
def test_methods_that_keep_the_grid_keep_as_many_windows(name: str) -> None:
    adapter, trace = adapter_for("qwen2.5"), list[Tokens]()
    plan = make_plan(MergeSpec(name, keep_ratio=0.25), adapter.shape)
    tokens = encode(adapter, pixels_for("qwen2.5"), plan, trace=trace)
    assert plan.grids is not None and plan.windows is not None
    assert (plan.grids[-1], plan.windows[-1]) == ((3, 5), (2, 2))
    assert [(left.grid, left.window) for left in trace] == list(
        zip(plan.grids[1:], plan.windows[1:], strict=True)
    )
    for image in range(2):
        for token in range(tokens.size.shape[1]):
            held = WINDOW_OF[tokens.source[image] == token]
            assert len(held.unique()) <= 1


@torch.inference_mode()
def test_places_of_a_smaller_grid_span_the_entry_grid() -> None:
    """Cells merged to half as many stand where every second one stood, their slots beside each other."""
    places = Places(tiny("qwen2.5").rotary_pos_emb, CELLS, (2, 2))
    tokens = start()
    entry = [part.view(6, 10, 4, 16) for part in places.table(tokens)]
    half = [part.view(3, 5, 4, 16) for part in places.table(replace(tokens, grid=(3, 5)))]
    for all_places, some in zip(entry, half, strict=True):
        torch.testing.assert_close(some, all_places[::2, ::2])
    scattered = replace(tokens, grid=None, position=torch.tensor([[33, 5], [0, 59]]))
    for all_places, some in zip(entry, places.table(scattered), strict=True):
        assert some.shape == (2, 1, 8, 16)
        assert torch.equal(some[0, 0], torch.cat([all_places[3, 3], all_places[0, 5]]))


@torch.inference_mode()
def test_windows_need_a_grid_or_their_order() -> None:
    block, tokens = adapter_for("qwen2.5").blocks[0], replace(start(), grid=None, window=None)
    with pytest.raises(AssertionError, match="tokens on a grid, or ordered by window"):
        block.attend(tokens.x, tokens, None)
    with pytest.raises(AssertionError, match="both"):
        merge_step(METHODS["tome"], by_window(start()), tokens.x, MergeStep(0, r=4))
