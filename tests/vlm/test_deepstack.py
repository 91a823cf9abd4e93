"""Levels of an encoder pooled into the final tokens: the model's own without merging, plain loops with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.vlm.towers import TOWERS, WIDTH, adapter_for, flat_patches, pixels_for, scene_for, tiny
from tosa import METHODS, MergeSpec, Tokens, cell_places, cells_of, make_plan
from vlm import encode
from vlm.deepstack import encode_levels, pool_into

MERGING = [name for name, method in METHODS.items() if method.merges]
FREE = [name for name in MERGING if not METHODS[name].keeps_grid]


def levels_of(
    name: str, spec: MergeSpec, layers: tuple[int, ...]
) -> tuple[Tokens, tuple[Tensor, ...], list[Tokens]]:
    """The final tokens, the pooled levels, and what every layer left behind."""
    adapter, pixels, trace = adapter_for(name), pixels_for(name), list[Tokens]()
    plan = make_plan(spec, adapter.shape)
    spatial = scene_for(name) if plan.needs_spatial else None
    encode(adapter, pixels, plan, spatial, trace=trace)
    final, levels = encode_levels(adapter, pixels, plan, layers, spatial)
    return final, levels, trace


@torch.inference_mode()
def test_without_merging_the_levels_are_those_of_the_model() -> None:
    model, pixels = tiny("qwen3"), pixels_for("qwen3")
    flat, grids = flat_patches(model, pixels)
    theirs = model(flat, grid_thw=grids)
    final, levels, _ = levels_of("qwen3", MergeSpec(), tuple(model.deepstack_visual_indexes))
    assert len(levels) == 2
    for level, merger, feature in zip(
        levels, model.deepstack_merger_list, theirs.deepstack_features, strict=True
    ):
        torch.testing.assert_close(merger(level.flatten(0, 1)), feature, rtol=1e-5, atol=1e-5)
    ours = model.merger(cells_of(final).flatten(0, 2))
    torch.testing.assert_close(ours, theirs.pooler_output, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "qwen2.5", "internvl"])
@pytest.mark.parametrize("method", MERGING)
@torch.inference_mode()
def test_levels_are_means_over_the_final_groups(method: str, name: str) -> None:
    final, levels, trace = levels_of(name, MergeSpec(method, keep_ratio=0.3), (0, 1, 2, 3))
    prefix, slots = final.num_prefix, final.slots
    for level, left in zip(levels, trace, strict=True):
        assert level.shape == final.x.shape == (2, prefix + (final.size.shape[1] - prefix) * slots, WIDTH)
        torch.testing.assert_close(level[:, :prefix], left.x[:, :prefix])
        for image in range(2):
            for token in range(final.size.shape[1] - prefix):
                held = (final.source[image] == prefix + token).nonzero().flatten()
                if len(held) == 0:
                    continue
                cells = cells_of(left)[image, left.source[image, held] - prefix]
                mine = level[image, prefix + token * slots : prefix + (token + 1) * slots]
                torch.testing.assert_close(mine, cells.mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", FREE)
@torch.inference_mode()
def test_the_last_level_is_the_final_one_to_the_last_bit(method: str) -> None:
    """Tokens that merge no more come out as they are, in the order of the final ones."""
    final, levels, _ = levels_of("qwen3", MergeSpec(method, keep_ratio=0.3), (3, 0))
    assert torch.equal(levels[0], final.x)
    assert not torch.allclose(levels[1], final.x, atol=1e-2)


@pytest.mark.parametrize("method", ["tome", "cubist"])
@torch.inference_mode()
def test_a_level_pooled_by_other_groups_would_be_seen(method: str) -> None:
    final, levels, trace = levels_of("qwen3", MergeSpec(method, keep_ratio=0.3), (0,))
    other = replace(final, source=final.source.flip(1), grid=None)
    assert other.position is not None
    wrong = pool_into(trace[0], replace(other, position=other.position.flip(1)))
    assert not torch.allclose(wrong, levels[0], atol=1e-2)


@torch.inference_mode()
def test_a_centroid_that_holds_nothing_gets_the_token_of_its_place() -> None:
    level = Tokens.start(torch.randn(1, 6, 2), (2, 3), track_position=True)
    source, position = torch.tensor([[0, 0, 2, 2, 2, 2]]), torch.tensor([[0, 4, 5]])
    final = Tokens(torch.zeros(1, 3, 2), torch.tensor([[2.0, 0, 4]]), source, (1, 3), position=position)
    pooled = pool_into(level, final)
    assert torch.equal(pooled[0, 1], level.x[0, 4])
    torch.testing.assert_close(pooled[0, 0], level.x[0, :2].mean(0))
    torch.testing.assert_close(pooled[0, 2], level.x[0, 2:].mean(0))


@torch.inference_mode()
def test_what_was_dropped_counts_nowhere() -> None:
    level = Tokens.start(torch.tensor([[[1.0], [2], [4], [8]]]), (2, 2), track_position=True)
    final = Tokens(
        torch.zeros(1, 2, 1),
        torch.ones(1, 2),
        torch.tensor([[-1, 0, -1, 1]]),
        None,
        position=torch.tensor([[1, 3]]),
        has_holes=True,
    )
    assert pool_into(level, final).flatten().tolist() == [2.0, 8.0]


def test_levels_that_do_not_run_are_refused() -> None:
    adapter = adapter_for("qwen3")
    plan = make_plan(MergeSpec(), adapter.shape)
    with pytest.raises(ValueError, match=r"levels \(1, 4\) are not all among the 4 layers"):
        encode_levels(adapter, pixels_for("qwen3"), plan, (1, 4))


def test_pooling_needs_sources_and_places() -> None:
    tokens = Tokens.start(torch.zeros(1, 4, 1), (2, 2), track_position=True)
    final = replace(tokens, grid=None)
    with pytest.raises(ValueError, match="know their patches and their places"):
        pool_into(tokens, replace(final, position=None))
    with pytest.raises(ValueError, match="know their patches and their places"):
        pool_into(replace(tokens, source=tokens.source[:, :0]), final)


@pytest.mark.parametrize("method", MERGING)
@torch.inference_mode()
def test_survivors_stand_on_the_grid_of_cells(method: str) -> None:
    final, _, _ = levels_of("qwen3", MergeSpec(method, keep_ratio=0.3), ())
    rows, columns = (side // 2 for side in TOWERS["qwen3"].grids[-1])
    places = cell_places(final)
    assert places.shape == (2, final.size.shape[1], 2) and places.dtype is torch.int64
    assert ((places >= 0) & (places < torch.tensor([rows, columns]))).all()
    if method in FREE:  # a token stands where one of its own cells stood, and no two stand together
        for image in range(2):
            cells = places[image, :, 0] * columns + places[image, :, 1]
            assert torch.equal(final.source[image, cells], torch.arange(len(cells)))
