"""Cells of patches: their order, merging slot by slot against plain loops, and what a plan counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tosa import (
    METHODS,
    Assignment,
    EncoderShape,
    MergeMethod,
    MergeSpec,
    MergeStep,
    PlanError,
    Tokens,
    cell_major,
    cell_places,
    cells_of,
    make_plan,
    max_magnitude,
    merge_step,
    mlerp,
    raster_order,
    recover,
    row_major,
    sizes_of_rows,
    spatial_tokens,
    unmerge,
    weighted_mean,
)
from tosa.grid import Grid
from tosa.reduction import Reduction, by_slot
from tosa.tokens import as_cells, as_slots

CELLS: list[Grid] = [(2, 2), (3, 3), (4, 4), (1, 2)]
MERGING = [name for name, method in METHODS.items() if method.merges]
FREE = [name for name in MERGING if not METHODS[name].keeps_grid]
GRIDS: dict[Grid, Grid] = {cell: (4 * cell[0], 6 * cell[1]) for cell in CELLS}  # 24 cells each
WIDTH = 5


def start(cell: Grid, num_prefix: int = 0, spatial: bool = True, batch: int = 2) -> Tokens:
    """Random tokens in cells, with codes of random depths."""
    rows, columns = GRIDS[cell]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, num_prefix + rows * columns, WIDTH, generator=generator)
    z = torch.randint(0, 5, (batch, rows, columns), generator=generator)
    codes = spatial_tokens(z, dim=12) if spatial else None
    return Tokens.start(x, (rows, columns), num_prefix, codes, track_position=True, cell=cell)


def keys_of(tokens: Tokens) -> Tensor:
    return torch.randn(*tokens.x.shape[:2], 7, generator=torch.Generator().manual_seed(4))


def step_of(method: MergeMethod) -> MergeStep:
    """Take a third, or of a grid one row and two columns."""
    return MergeStep(1, r=8, r_hw=(1, 2) if method.keeps_grid else None, alpha=0.5, num_layers=2)


def merged(name: str, tokens: Tokens) -> Tokens:
    method = METHODS[name]
    metric = tokens.x if method.site == "before_block" else keys_of(tokens)
    return merge_step(method, tokens, metric, step_of(method))


@pytest.mark.parametrize("cell", CELLS)
def test_the_patches_of_a_cell_stand_side_by_side(cell: Grid) -> None:
    rows, columns = GRIDS[cell]
    patches = torch.arange(rows * columns).view(rows, columns)
    slow = [
        patches[top + r, left + c]
        for top in range(0, rows, cell[0])
        for left in range(0, columns, cell[1])
        for r in range(cell[0])
        for c in range(cell[1])
    ]
    x = patches.flatten()[None, :, None].float()
    assert torch.equal(cell_major(x, (rows, columns), cell).flatten(), torch.stack(slow).float())
    assert torch.equal(row_major(cell_major(x, (rows, columns), cell), (rows, columns), cell), x)


def test_a_grid_of_no_whole_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="13 x 13 patches are no whole cells of 2 x 2"):
        cell_major(torch.zeros(1, 169, 1), (13, 13), (2, 2))
    with pytest.raises(ValueError, match="13 x 12 patches are no whole cells of 2 x 2"):
        EncoderShape(4, (13, 12), cell=(2, 2))
    with pytest.raises(ValueError, match="7 x 8 patches are no whole cells"):
        EncoderShape(4, (12, 12), window=(7, 8), cell=(2, 2))
    with pytest.raises(ValueError, match="no whole cells"):
        Tokens.start(torch.zeros(1, 9, 1), (3, 3), cell=(2, 2))
    with pytest.raises(ValueError, match="no whole cells of 0 x 2"):
        EncoderShape(4, (12, 12), cell=(0, 2))


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_of_cells_and_back(cell: Grid, num_prefix: int) -> None:
    tokens = start(cell, num_prefix)
    cells = as_cells(tokens)
    assert cells.x.shape == (2, num_prefix + 24, cell[0] * cell[1] * WIDTH)
    assert cells.size.shape == (2, num_prefix + 24)
    assert torch.equal(as_slots(cells).x, tokens.x)
    assert torch.equal(cells.x[:, :num_prefix, :WIDTH], tokens.x[:, :num_prefix])
    assert torch.equal(cells.x[:, num_prefix:].unflatten(2, (-1, WIDTH)), cells_of(tokens))
    assert sizes_of_rows(tokens).shape == tokens.x.shape[:2]


def test_single_patches_stay_the_same_objects() -> None:
    tokens = Tokens.start(torch.zeros(1, 6, 2), (2, 3))
    assert as_cells(tokens) is tokens and as_slots(tokens) is tokens
    assert sizes_of_rows(tokens) is tokens.size
    assert by_slot(mlerp, 1) is mlerp
    seen: list[Tokens] = []

    def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
        seen.append(tokens)
        return tokens

    metric = torch.zeros(1, 6, 3)
    assert merge_step(replace(METHODS["tome"], merge=merge), tokens, metric, MergeStep(0)) is tokens
    assert seen == [tokens]


def slow_mean(rows: Tensor, size: Tensor) -> Tensor:
    return (rows * size[:, None]).sum(0) / size.sum()


def slow_mlerp(rows: Tensor, size: Tensor) -> Tensor:
    mean = slow_mean(rows, size)
    return mean / mean.norm() * rows.norm(dim=1).max()


SLOW: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tome": slow_mean,
    "tosa": slow_mean,
    "pitome": slow_mean,
    "pool": slow_mean,
    "tofu": slow_mlerp,
}


@pytest.mark.parametrize("num_prefix", [0, 1])
@pytest.mark.parametrize("name", ["tome", "tosa", "pitome", "tofu"])
@pytest.mark.parametrize("cell", CELLS)
def test_merging_slot_by_slot_equals_a_plain_loop(cell: Grid, name: str, num_prefix: int) -> None:
    """Two steps, so that sizes differ in the second one."""
    before = merged(name, start(cell, num_prefix))
    check_slots(before, merged(name, before), name)


@pytest.mark.parametrize("cell", CELLS)
def test_pooling_cells_equals_a_plain_loop(cell: Grid) -> None:
    before = start(cell, 1)
    check_slots(before, merged("pool", before), "pool")


def check_slots(before: Tokens, after: Tokens, name: str) -> None:
    for image in range(2):
        groups: dict[int, set[int]] = {}
        for old, new in zip(before.source[image].tolist(), after.source[image].tolist(), strict=True):
            groups.setdefault(new, set()).add(old)
        assert any(len(members) > 1 for members in groups.values())
        for new, members in groups.items():
            index = torch.tensor(sorted(members)) - before.num_prefix
            size = before.size[image, before.num_prefix :][index]
            for slot in range(before.slots):
                rows = cells_of(before)[image, index, slot]
                expected = rows[0] if len(members) == 1 else SLOW[name](rows, size)
                torch.testing.assert_close(cells_of(after)[image, new - before.num_prefix, slot], expected)


def test_norms_are_those_of_single_slots() -> None:
    """The twin of the loops above: with the norm of all slots together, they would fail."""
    tokens, step = as_cells(start((2, 2))), MergeStep(1, r=8, num_layers=2)
    of_all = METHODS["tofu"].merge(replace(tokens, cell=(1, 1)), tokens.x, step)
    of_each = METHODS["tofu"].merge(tokens, tokens.x, step)
    assert torch.equal(of_all.source, of_each.source)
    assert not torch.allclose(of_all.x, of_each.x, rtol=0, atol=1e-2)


@pytest.mark.parametrize("reduction", [weighted_mean, max_magnitude])
def test_what_works_by_channel_is_the_same_for_slots_and_whole_rows(reduction: Reduction) -> None:
    tokens = as_cells(start((3, 3)))
    half = torch.arange(12).expand(2, -1)
    members = torch.stack([2 * half, 2 * half + 1], dim=-1)
    dest = (torch.arange(24) // 2).expand(2, -1)
    pairs = Assignment(dest, 12, 2 * half, merged=2 * half + 1, members=members)
    whole = reduction(tokens.x, tokens.size, pairs)
    assert torch.equal(by_slot(reduction, 9)(tokens.x, tokens.size, pairs), whole)


@pytest.mark.parametrize("cell", CELLS)
def test_cells_are_compared_by_the_mean_key_of_their_slots(cell: Grid) -> None:
    seen: list[Tensor] = []

    def merge(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
        seen.append(metric)
        return tokens

    tokens, slots = start(cell, 1), cell[0] * cell[1]
    keys = keys_of(tokens)
    merge_step(replace(METHODS["tome"], merge=merge), tokens, keys, MergeStep(0))
    for i in range(24):
        mean = keys[:, 1 + i * slots : 1 + (i + 1) * slots].mean(1)
        torch.testing.assert_close(seen[0][:, 1 + i], mean)
    assert torch.equal(seen[0][:, 0], keys[:, 0])
    merge_step(replace(METHODS["pool"], merge=merge), tokens, tokens.x, MergeStep(0))
    assert torch.equal(seen[1], as_cells(tokens).x)


@pytest.mark.parametrize("cell", CELLS)
def test_codes_of_depth_are_averaged_per_cell(cell: Grid) -> None:
    rows, columns = GRIDS[cell]
    z = torch.randint(0, 5, (1, rows, columns), generator=torch.Generator().manual_seed(5))
    codes = spatial_tokens(z, dim=12)
    tokens = Tokens.start(torch.zeros(1, 1 + rows * columns, 2), (rows, columns), 1, codes, cell=cell)
    assert tokens.spatial is not None and tokens.spatial.shape == (1, 25, 12)
    assert (tokens.spatial[:, 0] == 0).all()
    on_grid = codes.view(rows, columns, 12)
    for i in range(4):
        for j in range(6):
            block = on_grid[i * cell[0] : (i + 1) * cell[0], j * cell[1] : (j + 1) * cell[1]]
            torch.testing.assert_close(tokens.spatial[0, 1 + i * 6 + j], block.flatten(0, 1).mean(0))


def test_tosa_merges_the_cells_that_are_near_in_the_scene() -> None:
    """With the visual term off, depth decides: a step in it is never crossed."""
    z = torch.zeros(1, 8, 12, dtype=torch.int64)
    z[:, :, 6:] = 8
    x = torch.randn(1, 96, 3, generator=torch.Generator().manual_seed(6))
    tokens = Tokens.start(x, (8, 12), spatial=spatial_tokens(z, kernel="distance", levels=9), cell=(2, 2))
    step = MergeStep(0, r=10, alpha=0.0, num_layers=2)
    after = merge_step(METHODS["tosa"], tokens, keys_of(tokens), step)
    left = (torch.arange(24) % 6 < 3).expand(1, -1)
    for token in range(14):
        sides = left[after.source == token]
        assert sides.all() or not sides.any()


@pytest.mark.parametrize("name", MERGING)
@pytest.mark.parametrize("cell", CELLS)
def test_sizes_and_sources_count_cells(cell: Grid, name: str) -> None:
    after, slots = merged(name, start(cell, 1)), cell[0] * cell[1]
    n = after.size.shape[1] - 1
    assert after.x.shape == (2, 1 + n * slots, WIDTH)
    assert n < 24 and (after.size[:, 0] == 1).all()
    assert after.source.shape == (2, 24)
    for size, source in zip(after.size, after.source, strict=True):
        held = torch.bincount(source[source >= 0], minlength=n + 1)[1:]
        if not (after.has_holes and (source >= 0).all()):
            assert torch.equal(size[1:], held.float())
        assert after.has_holes or size[1:].sum() == 24
    assert after.spatial is not None and after.spatial.shape[:2] == after.size.shape
    if after.grid is not None:
        assert after.grid == (3, 4) and n == 12


@pytest.mark.parametrize("name", ["tome", "tofu", "cubist"])
@pytest.mark.parametrize("cell", CELLS)
def test_patches_come_back_in_row_major_order(cell: Grid, name: str) -> None:
    tokens = start(cell, 1)
    plain = row_major(tokens.x[:, 1:], GRIDS[cell], cell)
    assert torch.equal(recover(tokens), plain) and torch.equal(unmerge(tokens), plain)
    after = raster_order(merged(name, tokens))
    back, cells = unmerge(after), cells_of(after)
    assert back.shape == plain.shape and recover(after).shape == plain.shape
    for patch in range(plain.shape[1]):
        row, column = divmod(patch, GRIDS[cell][1])
        owner = row // cell[0] * 6 + column // cell[1]
        slot = row % cell[0] * cell[1] + column % cell[1]
        for image in range(2):
            token = int(after.source[image, owner])
            assert torch.equal(back[image, patch], cells[image, token - 1, slot])
            assert torch.equal(recover(after)[image, patch], back[image, patch])


@pytest.mark.parametrize("name", ["random", "saint"])
def test_a_dropped_cell_gets_the_nearest_one_slot_by_slot(name: str) -> None:
    tokens = start((2, 2))
    after = merged(name, tokens)
    assert after.has_holes
    back = cell_major(recover(after), GRIDS[2, 2], (2, 2)).unflatten(1, (24, 4))
    zero = cell_major(unmerge(after), GRIDS[2, 2], (2, 2)).unflatten(1, (24, 4))
    for image in range(2):
        kept = (after.source[image] >= 0).nonzero().flatten()
        for cell in range(24):
            distance = ((kept // 6 - cell // 6) ** 2 + (kept % 6 - cell % 6) ** 2).float()
            near = after.source[image, kept[distance == distance.min()]]
            assert any(torch.equal(back[image, cell], cells_of(after)[image, token]) for token in near)
            if after.source[image, cell] < 0:
                assert (zero[image, cell] == 0).all()


def test_raster_order_sorts_cells_whole() -> None:
    after = merged("tome", start((2, 2), 1))
    ordered = raster_order(after)
    firsts = [ordered.source[0].tolist().index(token) for token in range(1, 17)]
    assert firsts == sorted(firsts)
    for old, new in zip(after.source[0].tolist(), ordered.source[0].tolist(), strict=True):
        assert torch.equal(cells_of(after)[0, old - 1], cells_of(ordered)[0, new - 1])
        assert after.size[0, old] == ordered.size[0, new]


def test_places_are_rows_and_columns_of_cells() -> None:
    tokens = start((2, 2), 1)
    assert cell_places(tokens)[0].tolist() == [[i // 6, i % 6] for i in range(24)]
    after = raster_order(merged("tome", tokens))
    places = cell_places(after)
    for image in range(2):
        for token, (row, column) in enumerate(places[image].tolist()):
            assert after.source[image, row * 6 + column] == token + 1
    with pytest.raises(ValueError, match="track_position"):
        cell_places(replace(tokens, position=None))


SHAPE = EncoderShape(8, (24, 32), 1, hidden_size=16, mlp_size=40, cell=(2, 2))


@pytest.mark.parametrize("name", MERGING)
@pytest.mark.parametrize("cell", [(2, 2), (4, 4)])
def test_a_plan_counts_cells_and_reports_patches(name: str, cell: Grid) -> None:
    shape = replace(SHAPE, cell=cell)
    plan = make_plan(MergeSpec(name, keep_ratio=0.3), shape)
    slots, cells = cell[0] * cell[1], 768 // (cell[0] * cell[1])
    assert (plan.tokens_in, plan.cells_in) == (768, cells)
    assert plan.tokens_out == plan.cells_out * slots
    assert all((count - 1) % slots == 0 for count in plan.counts)
    if METHODS[name].keeps_grid:
        assert plan.grids is not None and plan.grids[0] == shape.cells
        assert abs(plan.cells_out - 0.3 * cells) < 0.05 * cells
    else:
        assert plan.cells_out == round(0.3 * cells)
    removed = sum(step.r for step in plan.steps if step is not None)
    assert removed == plan.cells_in - plan.cells_out


def test_flops_are_those_of_as_many_patch_tokens() -> None:
    """A plan of single patches with the same counts costs the same."""
    cells = make_plan(MergeSpec("tome", r=12), SHAPE)
    patches = make_plan(MergeSpec("tome", r=48), replace(SHAPE, cell=(1, 1)))
    assert cells.counts == patches.counts
    assert cells.flops() == patches.flops() and cells.flops_ratio == patches.flops_ratio < 1


def test_flops_by_hand() -> None:
    shape = EncoderShape(2, (4, 6), hidden_size=8, mlp_size=10, cell=(2, 2))
    plan = make_plan(MergeSpec("tome", r=(2, 1)), shape)
    assert plan.counts == (24, 16, 12)
    macs = sum(n * (4 * 64 + 2 * n * 8) for n in (24, 16)) + sum(2 * n * 8 * 10 for n in (16, 12))
    assert plan.flops() == 2 * macs


def test_too_small_a_share_is_said_in_cells() -> None:
    with pytest.raises(PlanError, match="leaves 2 of 192 cells of 2 x 2 patches, but tome in") as error:
        make_plan(MergeSpec("tome", keep_ratio=0.01, layers=(0,)), SHAPE)
    assert error.value.code == "keep_ratio_too_small" and error.value.limit is not None
    assert make_plan(MergeSpec("tome", keep_ratio=error.value.limit, layers=(0,)), SHAPE).cells_out == 96


@pytest.mark.parametrize("name", FREE)
def test_a_cell_of_one_patch_plans_as_before(name: str) -> None:
    plain = EncoderShape(8, (24, 32), 1)
    plan = make_plan(MergeSpec(name, keep_ratio=0.3), plain)
    assert plan.cells_out == plan.tokens_out and plan.cells_in == 768
    assert plan.regions is None and (plain.cells, plain.slots, plain.num_cells) == ((24, 32), 1, 768)


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("needs", [{"requires_grid": True}, {"window": (8, 8)}])
def test_cells_do_not_help_an_encoder_that_needs_its_grid(name: str, needs: dict[str, Any]) -> None:
    """A window that is filled up needs the grid, one that is simply cut does not."""
    shape = replace(SHAPE, num_prefix=0, **needs)
    with pytest.raises(PlanError, match=f"this encoder needs its grid and {name} breaks it up") as error:
        make_plan(MergeSpec(name, keep_ratio=0.5), shape)
    assert (error.value.code, error.value.field) == ("incompatible", "method")
    assert error.value.choices is not None
    for choice in error.value.choices:
        keep_ratio = 0.5 if METHODS[choice].merges else None
        assert make_plan(MergeSpec(choice, keep_ratio=keep_ratio), shape).cells_in == 192
    if "window" in needs:
        plan = make_plan(MergeSpec(name, keep_ratio=0.5), replace(shape, pads_windows=False))
        assert plan.regions is not None and plan.regions[0] == ((12, 16),)
