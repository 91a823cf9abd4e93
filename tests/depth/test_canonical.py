"""One code for depth from anywhere: sign, unit, holes, sky and resolution do not change what is merged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

import depth.codes
from depth import DepthMap, check_alignment, depth_codes, masked_depth, metric_depth
from tests.depth.files import decode_depth, jpeg, npy, png8, png16
from tosa import METHODS, EncoderShape, MergeSpec, Tokens, make_plan, spatial_tokens

GRIDS = [(12, 12), (9, 16), (27, 27)]
SEEDS = range(6)


def room(seed: int, shape: tuple[int, int] = (96, 128)) -> NDArray[np.float64]:
    """Metres: a floor that comes nearer below, a wall, boxes, and noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]] / max(shape)
    metres = np.minimum(1.2 / (rows + 0.12), 3 + columns)
    for _ in range(5):
        top, left = rng.uniform(0, 0.6, 2)
        inside = (abs(rows - top - 0.1) < 0.1) & (abs(columns - left - 0.1) < 0.12)
        metres = np.where(inside, np.minimum(metres, rng.uniform(0.8, 2.5)), metres)
    return metres * rng.normal(1, 0.005, shape)


def grey_image(seed: int) -> NDArray[np.uint8]:
    """Near is bright, as relative estimators are drawn."""
    near = 1 / room(seed)
    return np.round(255 * (near - near.min()) / (near.max() - near.min())).astype(np.uint8)


def merged(codes: Tensor, alpha: float | str, kernel: str = "sinusoidal") -> Tensor:
    """Say which token holds each patch after merging to a quarter, layer by layer."""
    grid = (codes.shape[0], codes.shape[1])
    patches = grid[0] * grid[1]
    spec = MergeSpec("tosa", keep_ratio=0.25, alpha=alpha, spatial_kernel=kernel)  # type: ignore[arg-type]
    metric = torch.randn(1, patches, 16, generator=torch.Generator().manual_seed(3))
    spatial = spatial_tokens(codes[None], kernel=kernel, levels=int(grid[0]))
    tokens = Tokens.start(metric, grid, spatial=spatial)
    for step in make_plan(spec, EncoderShape(4, grid, 0, 16, 32)).steps:
        if step is not None:
            tokens = METHODS["tosa"].merge(tokens, tokens.x, step)
    return tokens.source


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("alpha", [0.0, 0.5, "increase"])
@pytest.mark.parametrize("seed", SEEDS)
def test_near_bright_and_near_dark_merge_the_same(
    seed: int, alpha: float | str, grid: tuple[int, int]
) -> None:
    bright, dark = png8(grey_image(seed)), png8(255 - grey_image(seed))
    codes = [depth_codes(decode_depth(data), grid, grid[0]) for data in (bright, dark)]
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(merged(codes[0], alpha), merged(codes[1], alpha))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_image_that_is_told_the_wrong_way_round_merges_the_same(seed: int, grid: tuple[int, int]) -> None:
    right = depth_codes(decode_depth(png8(grey_image(seed)), kind="inverse"), grid, grid[0])
    same = depth_codes(decode_depth(png8(255 - grey_image(seed)), kind="relative"), grid, grid[0])
    wrong = depth_codes(decode_depth(png8(grey_image(seed)), kind="relative"), grid, grid[0])
    assert torch.equal(right, same)
    assert torch.equal(right, grid[0] - 1 - wrong)
    for kernel in ("sinusoidal", "distance"):
        for alpha in (0.0, 0.5):
            assert torch.equal(merged(right, alpha, kernel), merged(wrong, alpha, kernel))


def test_the_bottom_of_an_image_is_taken_as_near() -> None:
    codes = depth_codes(decode_depth(png8(255 - grey_image(0))), (12, 12), 12).float()
    assert codes[6:].mean() > codes[:6].mean()


greys = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(max_examples=300, deadline=None)
@given(greys, st.integers(1, 28), st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_codes_of_a_map_and_its_negative_are_mirrored(
    values: np.ndarray, levels: int, grid: tuple[int, int]
) -> None:
    plain = depth_codes(masked_depth(values, "relative"), grid, levels)
    negative = depth_codes(masked_depth(255 - values, "relative"), grid, levels)
    is_one = len(plain.unique()) == len(negative.unique()) == 1  # one code for all, whichever, says nothing
    assert is_one or torch.equal(plain, levels - 1 - negative)


def test_plain_rounding_down_would_not_be_mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(0, 250, 5, dtype=np.uint8).reshape(1, 50)
    halves = masked_depth(values, "relative"), masked_depth(255 - values, "relative")
    mirrored = [depth_codes(half, (1, 50), 12) for half in halves]
    assert torch.equal(mirrored[0], 11 - mirrored[1])

    def floor(from_middle: np.ndarray, levels: int) -> np.ndarray:
        return np.floor(from_middle + levels / 2).clip(0, levels - 1).astype(np.int64)

    monkeypatch.setattr(depth.codes, "_bins", floor)
    values = np.repeat(np.arange(13, dtype=np.uint8), 1)[None]
    monkeypatch.setattr(depth.codes, "PERCENTILES", (0.0, 100.0))
    broken = [depth_codes(masked_depth(half, "relative"), (1, 13), 12) for half in (values, 12 - values)]
    assert not torch.equal(broken[0], 11 - broken[1])


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_a_sky_of_ten_kilometres_leaves_the_bins_to_what_is_near(share: float) -> None:
    metres = room(0)
    sky = metres.copy()
    rows = int(share * len(metres))
    sky[:rows] = 10_000
    grid, below = (12, 12), slice(-(-12 * rows // len(metres)), None)
    plain, under = (depth_codes(metric_depth(one), grid, 27)[below] for one in (metres, sky))
    assert len(under.unique()) >= 0.6 * len(plain.unique())
    assert len(under.unique()) >= 10


def test_linear_depth_would_collapse_under_that_sky() -> None:
    sky = room(0)
    sky[:20] = 10_000
    as_relative = depth_codes(masked_depth(sky, "relative"), (12, 12), 27)
    assert len(as_relative[3:].unique()) == 1


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_scannet_png_and_its_metres_have_the_same_bins(dtype: str) -> None:
    millimetres = np.round(room(1) * 1000).astype(np.uint16)
    millimetres[:20, :30] = 0
    sensor = decode_depth(png16(millimetres), preset="scannet")
    metres = decode_depth(npy((millimetres / 1000).astype(dtype)))
    np.testing.assert_array_equal(sensor.values, metres.values)
    np.testing.assert_array_equal(sensor.valid, metres.valid)
    for grid in GRIDS:
        assert torch.equal(depth_codes(sensor, grid, 27), depth_codes(metres, grid, 27))


@pytest.mark.parametrize("preset", ["tum", "matterport", "realsense:0.0001"])
def test_the_unit_does_not_change_the_bins_but_by_its_rounding(preset: str) -> None:
    units = {"tum": 5000, "matterport": 4000, "realsense:0.0001": 10_000}[preset]
    stored = decode_depth(png16(np.round(room(2) * units)), preset=preset)
    apart = depth_codes(stored, (27, 27), 27) - depth_codes(metric_depth(room(2)), (27, 27), 27)
    assert apart.abs().max() <= 1 and (apart == 0).float().mean() > 0.98


def test_estimated_inverse_depth_is_encoded_like_a_file_of_it() -> None:
    inverse = (1 / room(3)).astype(np.float32)
    inverse[:10] = 0  # infinitely far, as estimators write a sky
    estimated = DepthMap(inverse, "inverse", None, np.ones(inverse.shape, np.bool_))
    sent = decode_depth(npy(inverse), kind="inverse")
    assert torch.equal(depth_codes(estimated, (12, 12), 12), depth_codes(sent, (12, 12), 12))


def test_inverse_of_any_scale_is_encoded_like_the_metres() -> None:
    metres = room(4)
    metric = depth_codes(metric_depth(metres), (12, 12), 12)
    for factor in (1, 80, 1e-3):
        inverse = decode_depth(npy((factor / metres).astype("f4")), kind="inverse")
        assert (depth_codes(inverse, (12, 12), 12) - metric).abs().max() <= 1
        assert (depth_codes(inverse, (12, 12), 12) == metric).float().mean() > 0.98


def test_lidar_of_low_resolution_with_holes_fits_a_large_frame() -> None:
    metres = room(5, (192, 256))
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(metres.shape) < 0.15, 0, metres)
    lidar = decode_depth(png16(np.round(holes * 1000)), preset="arkitscenes")
    check_alignment(lidar, (1440, 1920))
    apart = depth_codes(lidar, (24, 24), 24) - depth_codes(metric_depth(metres), (24, 24), 24)
    assert apart.abs().max() <= 1 and (apart == 0).float().mean() > 0.9


def test_a_jpeg_image_gives_nearly_the_codes_of_the_png() -> None:
    sharp = depth_codes(decode_depth(png8(grey_image(0))), (12, 12), 12)
    lossy = depth_codes(decode_depth(jpeg(grey_image(0), quality=85)), (12, 12), 12)
    assert (sharp - lossy).abs().max() <= 1
