"""Our encoder loop against transformers' own, against the ToSA release, and against its own promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlavaOnevisionConfig, SiglipVisionConfig, SiglipVisionModel

from tests.vlm.adapters import snapshot
from tosa import METHODS, EncoderShape, MergeSpec, Tokens, make_plan, spatial_tokens
from tosa.spec import Order
from vlm import Vlm, VlmError, encode
from vlm.families import family_of

Load = Callable[..., Vlm]
RunTower = Callable[[Vlm, Tensor, MergeSpec], Tokens]

GOLDEN = Path(__file__).parents[1] / "golden" / "tosa.npz"
MERGING = [name for name, method in METHODS.items() if method.merges]
SCATTERING = [name for name in MERGING if not METHODS[name].keeps_grid]
SPECS = [
    MergeSpec(),
    *(MergeSpec(m, keep_ratio=k, prop_attn=p) for m in MERGING for k in (0.5, 0.75) for p in (True, False)),
]


def random_pixels(vlm: Vlm, batch: int = 2) -> Tensor:
    side = vlm.image_processor.size_px
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("feature_layer", [-1, -2, 2])
@pytest.mark.parametrize("image_size", [56, 70], ids=["even grid", "odd grid"])
@pytest.mark.parametrize("heads", [1, 2, 4])
@torch.inference_mode()
def test_none_equals_the_tower_of_transformers(
    load: Load, run_tower: RunTower, feature_layer: int, image_size: int, heads: int
):
    vlm = load(feature_layer=feature_layer, image_size=image_size, heads=heads)
    pixels = random_pixels(vlm)
    theirs = vlm.tower(pixels, output_hidden_states=True).hidden_states[feature_layer]
    ours = run_tower(vlm, pixels, MergeSpec()).x
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("feature_layer", "num_layers"), [(-1, 3), (-2, 2), (-3, 1), (1, 1), (3, 3)])
def test_layers_that_run_follow_from_the_feature_layer(vlm: Vlm, feature_layer: int, num_layers: int):
    shape = shape_with(vlm, feature_layer)
    assert (shape.num_layers, shape.grid, shape.hidden_size, shape.mlp_size) == (num_layers, (4, 4), 32, 48)


@pytest.mark.parametrize("feature_layer", [0, 4, -4, [-1, -2]])
def test_a_feature_layer_that_cannot_run_is_refused(vlm: Vlm, feature_layer: int | list[int]):
    with pytest.raises(VlmError) as error:
        shape_with(vlm, feature_layer)
    assert error.value.code == "unsupported_model"


def shape_with(vlm: Vlm, feature_layer: int | list[int]) -> EncoderShape:
    family = family_of(config_with(vlm, feature_layer))
    return family.shape(family.whole(family.view_px))


def config_with(vlm: Vlm, feature_layer: int | list[int]) -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig.from_dict(
        vlm.model.config.to_dict() | {"vision_feature_layer": feature_layer}
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
@torch.inference_mode()
def test_encode_keeps_what_the_plan_said(vlm: Vlm, run_tower: RunTower, spec: MergeSpec):
    tokens = run_tower(vlm, random_pixels(vlm), spec)
    tokens_out = make_plan(spec, vlm.shape).tokens_out
    assert tokens.x.shape == (2, tokens_out, 32)
    for source, size in zip(tokens.source, tokens.size, strict=True):
        assert tokens.has_holes == bool((source < 0).any())
        counted = torch.bincount(source[source >= 0], minlength=tokens_out).float()
        torch.testing.assert_close(counted, size)


@pytest.mark.parametrize("method", SCATTERING)
@torch.inference_mode()
def test_raster_order_sorts_tokens_by_their_first_patch(vlm: Vlm, run_tower: RunTower, method: str):
    def first_patches(order: Order) -> list[int]:
        tokens = run_tower(vlm, random_pixels(vlm), MergeSpec(method, keep_ratio=0.5, order=order))
        return [tokens.source[0].tolist().index(token) for token in range(tokens.x.shape[1])]

    raster, merge = first_patches("raster"), first_patches("merge")
    assert raster == sorted(merge)
    if method in ("tome", "tosa"):  # others may leave raster order alone
        assert merge != sorted(merge)


@pytest.mark.parametrize("method", MERGING)
@torch.inference_mode()
def test_proportional_attention_counts_once_sizes_differ(vlm: Vlm, run_tower: RunTower, method: str):
    pixels = random_pixels(vlm)
    on, off = (run_tower(vlm, pixels, MergeSpec(method, keep_ratio=0.5, prop_attn=p)) for p in (True, False))
    weighs = bool((on.size > 1).any())  # not where tokens are only dropped
    assert ((on.x - off.x).abs().max() > 1e-3) == weighs
    on, off = (run_tower(vlm, pixels, MergeSpec(prop_attn=p)).x for p in (True, False))
    torch.testing.assert_close(on, off)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@torch.inference_mode()
def test_encode_leaves_nothing_on_the_model(vlm: Vlm, run_tower: RunTower, spec: MergeSpec):
    tower = vlm.tower
    before, pixels = snapshot(tower), random_pixels(vlm)
    kept = pixels.clone()
    run_tower(vlm, pixels, spec)
    assert snapshot(tower) == before
    assert torch.equal(pixels, kept)


def test_the_snapshot_would_see_a_patch(load: Load):
    tower = load(seed=9).tower
    before = snapshot(tower)
    tower.encoder.tokens = 1  # type: ignore[assignment]
    assert snapshot(tower) != before
    del tower.encoder.tokens
    assert snapshot(tower) == before
    with torch.no_grad():
        tower.post_layernorm.weight.add_(1)
    assert snapshot(tower) != before


def test_threads_with_different_plans_equal_serial(vlm: Vlm, run_tower: RunTower):
    pixels = random_pixels(vlm, batch=1)
    requests = [SPECS[i % len(SPECS)] for i in range(200)]

    @torch.inference_mode()  # thread-local, so it belongs inside
    def request(spec: MergeSpec) -> Tensor:
        return run_tower(vlm, pixels, spec).x

    serial = {spec: request(spec) for spec in SPECS}
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(request, requests))
    mismatches = sum(not torch.equal(x, serial[spec]) for x, spec in zip(parallel, requests, strict=True))
    assert mismatches == 0


class ClientLeft(Exception):
    pass


@pytest.mark.parametrize("layers", range(4))
@pytest.mark.parametrize("method", ["none", "tosa"])
@torch.inference_mode()
def test_a_caller_may_stop_between_two_layers(vlm: Vlm, run_tower: RunTower, method: str, layers: int):
    pixels, spec = random_pixels(vlm), MergeSpec(method, keep_ratio=None if method == "none" else 0.5)
    expected, before = run_tower(vlm, pixels, spec).x, snapshot(vlm.tower)
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls > layers:
            raise ClientLeft

    done: list[Tokens] = []
    plan = make_plan(spec, vlm.shape)
    z = torch.zeros(2, *plan.shape.grid, dtype=torch.int64)
    left = pytest.raises(ClientLeft) if layers < 3 else nullcontext()  # 3 layers: the fourth never comes
    with left:
        encode(vlm.tower, pixels, plan, spatial_tokens(z), trace=done, between_layers=stop)
    assert len(done) == layers
    assert snapshot(vlm.tower) == before
    assert torch.equal(run_tower(vlm, pixels, spec).x, expected)


def test_gradients_reach_the_tower_through_merging(load: Load, run_tower: RunTower):
    vlm = load(seed=5)
    run_tower(vlm, random_pixels(vlm), MergeSpec("tosa", keep_ratio=0.25)).x.square().sum().backward()
    gradient = vlm.tower.embeddings.patch_embedding.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@torch.inference_mode()
def test_the_whole_encoder_matches_the_tosa_release():
    golden = np.load(GOLDEN)
    tower = golden_tower(golden)
    shape = EncoderShape(num_layers=5, grid=(27, 27), hidden_size=144, mlp_size=192)
    alpha = tuple(golden["alpha"].tolist())
    plan = make_plan(
        MergeSpec("tosa", r=int(golden["r"]), alpha=alpha, prop_attn=False, order="merge"), shape
    )
    assert list(plan.counts) == golden["counts"].tolist()
    pixels = torch.from_numpy(golden["pixel_values"].astype(np.float32))
    tokens = encode(tower, pixels, plan, torch.from_numpy(golden["spatial"]))
    torch.testing.assert_close(tokens.x, torch.from_numpy(golden["last"]), rtol=1e-4, atol=1e-4)


def golden_tower(golden: Mapping[str, np.ndarray]) -> SiglipVisionModel:
    config = SiglipVisionConfig(
        hidden_size=144,
        intermediate_size=192,
        num_hidden_layers=5,
        num_attention_heads=2,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    tower = SiglipVisionModel(config).eval()
    names = {name: name.removeprefix("w.vision_model.") for name in golden if name.startswith("w.")}
    weights = {short: torch.from_numpy(golden[name].astype(np.float32)) for name, short in names.items()}
    tower.load_state_dict(weights)
    return tower
