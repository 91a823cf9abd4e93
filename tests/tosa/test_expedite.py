"""Expedite against a slow version, and what it promises about sizes, windows and the way back."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tosa import METHODS, EncoderShape, MergeSpec, MergeStep, PlanError, Tokens, attention, make_plan, recover
from tosa.grid import Grid
from tosa.methods.expedite import ExpediteOptions

merge = METHODS["expedite"].merge
SOFT = ExpediteOptions(temperature=0.0005)


def grid_features(grid: Grid, num_prefix: int = 0, batch: int = 1, width: int = 16, seed: int = 5) -> Tensor:
    """Features that change slowly over the grid, and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, width, 3, 3, generator=generator)
    smooth = F.interpolate(coarse, grid, mode="bilinear").flatten(2).mT
    noise = torch.randn(batch, num_prefix + math.prod(grid), width, generator=generator)
    return 0.3 * noise + torch.cat([noise[:, :num_prefix], smooth], dim=1)


def slow_expedite(
    x: Tensor, size: Tensor, grid: Grid, kept: Grid, options: ExpediteOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster one image x [P, C] in float64: centroids [M, C], nearest [P], distances [P, M]."""
    x = x.double()
    centroids = F.adaptive_avg_pool2d(x.T.unflatten(1, grid), kept).flatten(1).T
    far = torch.zeros(len(x), len(centroids), dtype=torch.float64)
    for p in range(len(x)):
        for m in range(len(centroids)):
            home = p // grid[1] * kept[0] // grid[0], p % grid[1] * kept[1] // grid[1]
            steps = max(abs(home[0] - m // kept[1]), abs(home[1] - m % kept[1]))
            far[p, m] = 0 if steps <= options.neighbourhood // 2 else 1e16
    scale = 1280 / x.shape[1]
    for _ in range(options.iterations):
        distance = scale * torch.cdist(x, centroids).square() + far
        weight = (-options.temperature * distance).softmax(dim=1) * size[:, None]
        centroids = (weight / weight.sum(0)).T @ x
    distance = scale * torch.cdist(x, centroids).square()
    return centroids, (distance + far).argmin(dim=1), distance


@pytest.mark.parametrize("num_prefix", [0, 2])
@pytest.mark.parametrize("options", [None, SOFT, ExpediteOptions(2, 0.002, 1, 4)])
@pytest.mark.parametrize(("grid", "r_hw"), [((8, 9), (4, 5)), ((7, 6), (1, 0)), ((12, 5), (3, 4))])
def test_it_equals_the_slow_version(
    grid: Grid, r_hw: Grid, options: ExpediteOptions | None, num_prefix: int
) -> None:
    x = grid_features(grid, num_prefix)
    tokens = Tokens.start(x, grid, num_prefix)
    merged = merge(tokens, x, MergeStep(0, r_hw=r_hw, options=options))
    kept, options = (grid[0] - r_hw[0], grid[1] - r_hw[1]), options or ExpediteOptions()
    patches = x[0, num_prefix:]
    centroids, nearest, distance = slow_expedite(patches, torch.ones(len(patches)), grid, kept, options)
    assert merged.grid == kept
    torch.testing.assert_close(merged.x[0, num_prefix:], centroids.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.source[0] - num_prefix, nearest)
    assert torch.equal(merged.x[:, :num_prefix], x[:, :num_prefix])
    best = (-options.temperature * distance).topk(min(options.top_k, len(centroids)), dim=1)
    mix = torch.zeros_like(distance).scatter(1, best.indices, best.values.softmax(dim=1))
    torch.testing.assert_close(recover(merged)[0], (mix @ centroids).float(), rtol=1e-4, atol=1e-4)


def test_sizes_add_up_and_may_be_zero() -> None:
    """Of equal tokens all choose the first centroid they may, so most centroids own nobody."""
    x = torch.ones(2, 1 + 36, 4)
    merged = merge(Tokens.start(x, (6, 6), num_prefix=1), x, MergeStep(0, r_hw=(3, 3)))
    assert (merged.size == 0).any()
    for size, source in zip(merged.size, merged.source, strict=True):
        assert torch.equal(size[1:], source.bincount(minlength=10)[1:].float())
        assert size[1:].sum() == 36
    torch.testing.assert_close(recover(merged), x[:, 1:])


def test_a_token_of_size_zero_is_not_attended_to() -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    size = torch.tensor([[1.0, 0, 3, 0, 2]])
    owners = torch.tensor([0, 2, 4])
    without = attention(q, k[:, :, owners], v[:, :, owners], size[:, owners])
    torch.testing.assert_close(attention(q, k, v, size), without)


def test_zero_sizes_survive_another_step() -> None:
    x = torch.ones(1, 36, 4)
    tokens = merge(Tokens.start(x, (6, 6)), x, MergeStep(0, r_hw=(2, 2)))
    tokens = merge(tokens, tokens.x, MergeStep(1, r_hw=(2, 2)))
    assert torch.isfinite(tokens.x).all() and tokens.size.sum() == 36
    torch.testing.assert_close(recover(tokens), x)


def test_sizes_weigh_the_means() -> None:
    """In one window that blends evenly, the only centroid is the mean over patches."""
    x = grid_features((1, 3))
    tokens = METHODS["pool"].merge(Tokens.start(x, (1, 3)), x, MergeStep(0, r_hw=(0, 1)))
    assert tokens.size.tolist() == [[2, 1]]
    one = merge(tokens, tokens.x, MergeStep(1, r_hw=(0, 1)))
    torch.testing.assert_close(one.x, x.mean(1, keepdim=True))


def test_windows_are_clustered_one_by_one() -> None:
    grid, window, step = (8, 9), (5, 5), MergeStep(0, r_hw=(2, 2), options=SOFT)
    x = grid_features(grid, batch=2)
    merged = merge(Tokens.start(x, grid, window=window), x, step)
    assert (merged.grid, merged.window) == ((5, 6), (3, 3))
    dense, sizes = recover(merged).unflatten(1, grid), merged.size.unflatten(1, (5, 6))
    for rows, lost_rows in [(slice(0, 5), 2), (slice(5, 8), 1)]:
        for columns, lost_columns in [(slice(0, 5), 2), (slice(5, 9), 1)]:
            part = x.unflatten(1, grid)[:, rows, columns]
            alone = merge(
                Tokens.start(part.flatten(1, 2), (part.shape[1], part.shape[2])),
                part,
                MergeStep(0, r_hw=(lost_rows, lost_columns), options=SOFT),
            )
            expected = recover(alone).unflatten(1, part.shape[1:3])
            torch.testing.assert_close(dense[:, rows, columns], expected, rtol=1e-4, atol=1e-4)
            out_rows, out_columns = slice(rows.start * 3 // 5, None), slice(columns.start * 3 // 5, None)
            assert alone.grid is not None
            mine = sizes[:, out_rows, out_columns][:, : alone.grid[0], : alone.grid[1]]
            assert torch.equal(mine.flatten(1), alone.size)
    whole = merge(Tokens.start(x, grid), x, MergeStep(0, r_hw=(3, 3), options=SOFT))
    assert not torch.allclose(recover(whole), dense.flatten(1, 2), atol=1e-3)


def test_wider_features_of_the_same_spread_cluster_the_same() -> None:
    x = grid_features((6, 6))
    step = MergeStep(0, r_hw=(3, 3))
    narrow = merge(Tokens.start(x, (6, 6)), x, step).x
    wide = merge(Tokens.start(torch.cat([x, x], -1), (6, 6)), x, step).x
    torch.testing.assert_close(wide, torch.cat([narrow, narrow], -1), rtol=1e-4, atol=1e-4)


def test_a_large_common_channel_costs_no_digits() -> None:
    x = grid_features((6, 6))
    shift = torch.zeros(16).index_fill(0, torch.tensor([3]), 2048.0)
    shifted = ((x + shift) - shift).contiguous()  # what is left of x in float32
    step = MergeStep(0, r_hw=(3, 3))
    plain, moved = (merge(Tokens.start(value, (6, 6)), value, step) for value in (shifted, shifted + shift))
    assert torch.equal(plain.source, moved.source)
    torch.testing.assert_close(moved.x - shift, plain.x, rtol=1e-3, atol=1e-3)


def test_two_steps_blend_through_both() -> None:
    x = grid_features((8, 8), num_prefix=1)
    start = Tokens.start(x, (8, 8), num_prefix=1)
    step = MergeStep(0, r_hw=(3, 3), options=ExpediteOptions(temperature=0.001, top_k=64))
    once = merge(start, x, step)
    twice = merge(once, once.x, step)
    assert twice.blend is not None and once.blend is not None
    torch.testing.assert_close(twice.blend.weight.sum(-1), torch.ones(1, 64))
    # With room for all tokens nothing is lost: first back to the tokens between, then to the patches.
    fresh = replace(Tokens.start(once.x, (5, 5), num_prefix=1), size=once.size)
    between = recover(merge(fresh, once.x, step))
    mix = torch.zeros(1, 64, 26).scatter_add(2, once.blend.index, once.blend.weight)[:, :, 1:]
    torch.testing.assert_close(recover(twice), mix @ between, rtol=1e-4, atol=1e-4)


def test_without_a_map_there_is_no_blend() -> None:
    x = grid_features((6, 6))
    merged = merge(Tokens.start(x, (6, 6), track_source=False), x, MergeStep(0, r_hw=(3, 3)))
    assert merged.blend is None
    with pytest.raises(ValueError, match="track_source"):
        recover(merged)


def test_gradients_reach_the_features() -> None:
    x = grid_features((6, 6)).requires_grad_()
    merge(Tokens.start(x, (6, 6)), x, MergeStep(0, r_hw=(3, 3))).x.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.sum(), torch.tensor(9.0 * 16))


def test_half_precision_is_clustered_in_float32_even_under_autocast() -> None:
    x = grid_features((6, 6)).bfloat16()
    step = MergeStep(0, r_hw=(3, 3), options=SOFT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = merge(Tokens.start(x, (6, 6)), x, step)
    assert inside.x.dtype is torch.bfloat16
    exact = merge(Tokens.start(x.float(), (6, 6)), x, step)
    assert torch.equal(inside.source, exact.source)
    assert torch.equal(inside.x, exact.x.bfloat16())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("iterations", 0), ("iterations", 2.5), ("temperature", -1.0), ("temperature", math.inf)],
        *[("neighbourhood", 4), ("neighbourhood", 0), ("top_k", 0), ("top_k", "all")],
    ],
)
def test_bad_options_are_refused(name: str, value: float) -> None:
    with pytest.raises(PlanError, match=name) as error:
        make_plan(MergeSpec("expedite", keep_ratio=0.5, options={name: value}), EncoderShape(4, (6, 6)))
    assert (error.value.code, error.value.field) == ("bad_option", "options")
