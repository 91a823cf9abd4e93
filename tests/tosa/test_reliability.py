"""ToSA's alpha "auto": trust in the picture falls with noise, and in depth where the two disagree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tosa import METHODS, MergeStep, PlanError, Tokens, alpha_schedule, position_tokens, spatial_tokens
from tosa.matching import bipartite, cosine
from tosa.reliability import MOST_DEPTH, depth_weight, picture_reliability, reliable_score
from tosa.spatial import split_depth

GRID = (12, 12)


def scene() -> Tensor:
    """Levels of depth [1, 12, 12]: a near thing before a far wall."""
    z = torch.zeros(1, *GRID, dtype=torch.int64)
    z[:, 3:9, 4:10] = 8
    return z


def keys(noise: float, z: Tensor, batch: int = 1) -> Tensor:
    """Keys [B, 144, 32] of the things that `z` shows, and noise of a length relative to theirs."""
    draw = torch.Generator().manual_seed(0)
    kinds = torch.randn(2, 32, generator=draw)
    spread = torch.randn(batch, 144, 32, generator=draw)
    return kinds[(z > 0).long().flatten(1)].expand(batch, -1, -1) + noise * spread


def parts(z: Tensor, metric: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    place, depth = split_depth(spatial_tokens(z, levels=12))
    assert depth is not None
    return cosine(metric, 0), cosine(place, 0), cosine(depth, 0)


def reliability(noise: float) -> float:
    visual, place, depth = parts(scene(), keys(noise, scene()))
    return picture_reliability(visual, (2 * place + depth) / 3).item()


def test_noise_lowers_the_trust_in_the_picture() -> None:
    found = [reliability(noise) for noise in (0.0, 0.5, 1.0, 3.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.9 and found[-1] < 0.2


def test_depth_counts_where_it_agrees_with_the_keys_also_in_noise() -> None:
    other = scene().roll((5, 6), dims=(1, 2))
    for noise in (0.1, 1.0):
        metric = keys(noise, scene())
        weights = []
        for z in (scene(), other):
            visual, place, depth = parts(z, metric)
            picture = picture_reliability(visual, (2 * place + depth) / 3)
            weights.append(depth_weight(visual, place, depth, picture).item())
        assert weights[0] > 0.9 * MOST_DEPTH
        assert weights[1] < 0.3 * MOST_DEPTH


def test_flat_depth_counts_nothing_and_equal_keys_break_nothing() -> None:
    visual, place, depth = parts(torch.zeros(1, *GRID, dtype=torch.int64), keys(0.5, scene()))
    assert depth_weight(visual, place, depth, torch.ones(1)).item() == 0
    same = cosine(torch.ones(1, 144, 8), 0)
    assert reliable_score(same, place, depth).isfinite().all()
    assert torch.equal(reliable_score(same[:, :, :0], place[:, :, :0], None), same[:, :, :0])


def test_a_clear_picture_merges_as_tome_would() -> None:
    metric = keys(0.0, scene())
    visual, place, depth = parts(scene(), metric)
    joined = bipartite(reliable_score(visual, place, depth), 40, 0)
    thing = (scene() > 0).flatten()
    merged = joined.merged
    assert merged is not None
    leaders = joined.survivor.gather(1, joined.dest.gather(1, merged))
    assert torch.equal(thing[merged[0]], thing[leaders[0]])


def test_in_noise_what_merges_lies_together() -> None:
    spatial = spatial_tokens(scene(), levels=12)
    metric = keys(2.0, scene())
    tokens = Tokens.start(metric, GRID, spatial=spatial)

    def reach(name: str, alpha: str | float) -> float:
        merged = METHODS[name].merge(tokens, metric, MergeStep(0, r=50, alpha=alpha))  # type: ignore[arg-type]
        place = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij"), -1)
        place = place.view(-1, 2)
        means = torch.zeros(94, 2).index_add(0, merged.source[0], place) / merged.size[0, :, None]
        return (place - means[merged.source[0]]).norm(dim=1).mean().item()

    assert reach("tosa", "auto") < 0.3 * reach("tome", 1.0)


def test_an_image_does_not_depend_on_its_batch() -> None:
    z = torch.cat([scene(), scene().roll(3, dims=2)])
    metric = keys(1.0, z, batch=2)
    both = reliable_score(*parts(z, metric))
    for index in (0, 1):
        alone = reliable_score(*parts(z[index : index + 1], metric[index : index + 1]))
        assert torch.allclose(both[index], alone[0], atol=1e-6)


def test_the_width_tells_whether_there_is_depth() -> None:
    for kernel in ("sinusoidal", "distance"):
        for dim in (12, 18, 36, 48, 72):
            place, depth = split_depth(spatial_tokens(scene(), dim, kernel))
            alone, none = split_depth(position_tokens(GRID, kernel=kernel, dim=dim))
            assert none is None and depth is not None
            assert torch.equal(place, alone[..., : place.shape[-1]])
            assert not alone[..., place.shape[-1] :].any()


def test_auto_is_a_word_of_alpha() -> None:
    assert alpha_schedule("auto", 3) == ("auto",) * 3
    with pytest.raises(PlanError, match="auto"):
        alpha_schedule("automatic", 3)
