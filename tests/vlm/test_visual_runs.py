"""What vLLM derives from the runs of a prompt is where this process places its tokens, or nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.vlm.family_pictures import pictures, read
from tosa import MergeSpec
from vlm import Vlm, VlmError, layouts, load_vlm, plan_views, saves
from vlm.families import VisualRun

NAMES = ("qwen2_5_vl", "qwen3_vl")


def derived(vlm: Vlm, ids: Sequence[int], runs: Sequence[VisualRun]) -> np.ndarray:
    """Return positions as vLLM derives them (get_mrope_input_positions), from its own inputs alone."""
    merge = vlm.family.vision.spatial_merge_size
    found: list[np.ndarray] = []
    at = 0

    def text(until: int) -> None:
        begin = found[-1].max() + 1 if found else 0
        found.append(np.broadcast_to(np.arange(until - at), (3, until - at)) + begin)

    for run in runs:
        text(run.start)
        begin = run.start - at + (found[-2].max() + 1 if len(found) > 1 else 0)
        times, rows, columns = run.grid
        grid = np.indices((times, rows // merge, columns // merge))
        if times > 1:
            factor = run.seconds * vlm.family.vision.tokens_per_second
            grid[0] = (grid[0] * factor).astype(np.int64)
        found.append(grid.reshape(3, -1) + begin)
        at = run.start + found[-1].shape[1]
    text(len(ids))
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("sizes", "views"),
    [([(90, 200)], "auto"), ([(480, 640), (60, 60)], "auto"), ([(90, 120)] * 14, "video")],
    ids=["one", "two", "video"],
)
def test_positions_that_are_derived_are_ours(
    member: Callable[..., Any], name: str, sizes: list[tuple[int, int]], views: str
) -> None:
    vlm: Vlm = member(name).vlm
    ids, visuals = read(vlm, pictures(sizes), views=views)
    ids = ids[0].tolist()
    runs = vlm.family.visual_runs(ids, visuals)
    ours, _ = vlm.family.positions(ids, visuals, torch.device("cpu"))
    assert np.array_equal(derived(vlm, ids, runs), ours.numpy())
    width = vlm.text_config.hidden_size * (1 + vlm.family.num_levels)
    assert vlm.family.num_levels == (2 if name == "qwen3_vl" else 0)
    for run in runs:
        assert run.features.shape == (np.prod(run.grid) // 4, width)
        assert {ids[run.start + at] for at in range(len(run.features))} <= set(vlm.family.visual_token_ids)
    deep = [torch.cat((visual.features, *visual.deepstack), dim=1) for visual in visuals]
    assert torch.equal(torch.cat([run.features for run in runs]), torch.cat(deep))


@pytest.mark.parametrize("name", NAMES)
def test_no_run_has_gaps(member: Callable[..., Any], name: str) -> None:
    """vLLM would end its engine: whoever comes here with a merged picture is stopped."""
    vlm: Vlm = member(name).vlm
    for method in ("tome", "pool"):
        ids, visuals = read(vlm, pictures([(480, 640)]), MergeSpec(method, keep_ratio=0.5))
        with pytest.raises(ValueError, match=r"the whole of a grid|stand elsewhere"):
            vlm.family.visual_runs(ids[0].tolist(), visuals)
    ids, (visual,) = read(vlm, pictures([(480, 640)]))
    ids = ids[0].tolist()
    with pytest.raises(ValueError, match="stand elsewhere"):
        vlm.family.visual_runs(ids, [replace(visual, span=visual.span + 1)])
    with pytest.raises(ValueError, match="needs a place"):
        vlm.family.visual_runs(ids, [replace(visual, places=None)])
    with pytest.raises(ValueError, match="0 image placeholders"):
        vlm.family.visual_runs(ids[:3], [visual])
    assert vlm.family.visual_runs(ids[:3], []) == ()


@pytest.mark.parametrize("method", ["tome", "cubist", "expedite"])
@pytest.mark.parametrize("name", NAMES)
def test_where_the_language_model_is_elsewhere_every_cell_gets_its_features_back(
    member: Callable[..., Any], name: str, method: str
) -> None:
    alone, images = load_vlm(member(name).folder, parts="vision"), pictures([(120, 160)])
    ids, (whole,) = read(alone, images)
    spec = MergeSpec(method, keep_ratio=0.5)
    merged_ids, (merged,) = read(alone, images, spec)
    assert torch.equal(merged_ids, ids), "as many placeholders"
    assert merged.places is not None and whole.places is not None
    assert torch.equal(merged.places, whole.places) and merged.span == whole.span
    (layout,) = layouts(alone, [(120, 160)])
    plan = plan_views(alone, spec, layout)
    assert saves(alone, layout, plan) == ("vit",) and saves(member(name).vlm, layout, plan) == ("vit", "lm")
    (run,) = alone.family.visual_runs(merged_ids[0].tolist(), [merged])
    distinct = torch.unique(run.features, dim=0)
    assert not torch.allclose(merged.features, whole.features, atol=1e-3)
    if method != "expedite":  # each cell of which has a mixture of its own
        assert len(distinct) == plan.cells_out < len(run.features)


def test_a_video_that_ends_elsewhere_there_is_refused(member: Callable[..., Any]) -> None:
    """transformers counts on by the size of the frames, vLLM by the time too where that is more."""
    alone = load_vlm(member("qwen2_5_vl").folder, parts="vision")
    (short,) = layouts(alone, [(60, 60)] * 8, "video")
    plan_views(alone, MergeSpec(), short)
    (long,) = layouts(alone, [(60, 60)] * 96, "video")
    with pytest.raises(VlmError, match="fewer frames") as error:
        plan_views(alone, MergeSpec(), long)
    assert (error.value.code, error.value.field) == ("unsupported_views", "views")
