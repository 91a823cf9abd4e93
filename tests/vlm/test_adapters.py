"""Every family of vision transformers with every method: the result of its library, and the invariants."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.vlm.adapters import (
    FAMILIES,
    FEW,
    LAYERS,
    SAMS,
    WIDTH,
    adapter_for,
    pixels_for,
    scene_for,
    snapshot,
    tiny,
)
from tosa import METHODS, MergePlan, MergeSpec, PlanError, Tokens, make_plan
from vlm import encode, tosa_encode

MERGING = [name for name, method in METHODS.items() if method.merges]
# Free-form methods in the families that need their grid cannot run.
PAIRS = [
    (name, method)
    for name in FAMILIES
    for method in MERGING
    if name not in SAMS or METHODS[method].keeps_grid
]
ALL_PAIRS = [
    pytest.param(*pair, marks=() if pair[0] in FEW or at % len(MERGING) == 0 else pytest.mark.long)
    for at, pair in enumerate(PAIRS)
]
"""The towers of `FEW` with every method, and the others with some."""
REFUSED = [(name, method) for name in SAMS for method in MERGING if not METHODS[method].keeps_grid]


def plan_for(name: str, method: str, keep_ratio: float = 0.5) -> MergePlan:
    return make_plan(MergeSpec(method, keep_ratio=keep_ratio), adapter_for(name).shape)


@torch.inference_mode()
def run(name: str, method: str, pixels: Tensor, keep_ratio: float = 0.5, first: int | None = None) -> Tokens:
    plan, spatial = plan_for(name, method, keep_ratio), scene_for(name, batch=2)
    if first is not None:
        spatial = spatial[first : first + 1]
    return encode(tiny(name), pixels, plan, spatial if plan.needs_spatial else None)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_none_equals_the_forward_of_the_library(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    tokens = tosa_encode(model, pixels, MergeSpec())
    torch.testing.assert_close(tokens.x, FAMILIES[name].forward(model, pixels), rtol=0, atol=1e-5)
    assert tokens.num_prefix == FAMILIES[name].num_prefix
    assert tokens.grid == FAMILIES[name].grid


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_every_part_of_every_block_counts(name: str) -> None:
    """The twin of the test above: with any part left out, it would fail."""
    adapter, pixels = adapter_for(name), pixels_for(name)
    right = tosa_encode(adapter, pixels, MergeSpec()).x
    first, *rest = adapter.blocks

    def attends_to_nothing(x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
        attended, keys = first.attend(x, tokens, size)
        return torch.zeros_like(attended), keys

    for broken in (replace(first, attend=attends_to_nothing), replace(first, mlp=torch.zeros_like)):
        wrong = tosa_encode(replace(adapter, blocks=(broken, *rest)), pixels, MergeSpec()).x
        assert not torch.allclose(wrong, right, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("name", "method"), ALL_PAIRS)
def test_merging_keeps_its_promises(name: str, method: str) -> None:
    plan, pixels, num_prefix = plan_for(name, method), pixels_for(name), FAMILIES[name].num_prefix
    tokens = run(name, method, pixels)
    assert tokens.x.shape == (2, num_prefix + plan.tokens_out, WIDTH)
    assert plan.tokens_out < plan.tokens_in
    assert tokens.x.isfinite().all()
    assert tokens.num_prefix == num_prefix
    assert (tokens.size[:, :num_prefix] == 1).all()
    assert (tokens.source >= num_prefix).sum() == (tokens.source >= 0).sum()
    if not tokens.has_holes:
        for size, source in zip(tokens.size, tokens.source, strict=True):
            held = torch.bincount(source, minlength=len(size))[num_prefix:]
            assert torch.equal(size[num_prefix:], held.float())
    if tokens.grid is not None:
        assert tokens.grid[0] * tokens.grid[1] == plan.tokens_out


@pytest.mark.parametrize(("name", "method"), ALL_PAIRS)
def test_an_image_does_not_depend_on_its_neighbours(name: str, method: str) -> None:
    pixels = pixels_for(name)
    together = run(name, method, pixels)
    for i in range(2):
        alone = run(name, method, pixels[i : i + 1], first=i)
        assert torch.equal(alone.source[0], together.source[i])
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "method"), ALL_PAIRS)
def test_nothing_is_left_on_the_model(name: str, method: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    before, kept = snapshot(model), pixels.clone()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    run(name, method, pixels)
    assert snapshot(model) == before
    assert torch.equal(pixels, kept)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(("name", "method"), REFUSED)
def test_a_pair_that_cannot_work_is_refused_by_the_plan(name: str, method: str) -> None:
    with pytest.raises(PlanError) as error:
        plan_for(name, method)
    message = str(error.value)
    assert method in message
    assert type(tiny(name)).__name__ in message
    assert all(other in message for other in METHODS if METHODS[other].keeps_grid)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.long) for name in FAMILIES]
)
def test_threads_with_different_plans_equal_serial(name: str) -> None:
    pixels = pixels_for(name)
    specs = [(method, keep) for family, method in PAIRS if family == name for keep in (0.5, 0.75)]
    jobs = specs * 3
    serial = {spec: run(name, spec[0], pixels, spec[1]).x for spec in specs}
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(lambda spec: run(name, spec[0], pixels, spec[1]).x, jobs))
    assert all(torch.equal(x, serial[spec]) for spec, x in zip(jobs, parallel, strict=True))


@pytest.mark.parametrize("name", ["deit", "res-post", "eva02", "dinov3", "drop path"])
def test_dropping_out_at_random_stays_in_the_chain(name: str) -> None:
    model, pixels = FAMILIES[name].build().train(), pixels_for(name)
    torch.manual_seed(3)
    theirs = FAMILIES[name].forward(model, pixels)
    torch.manual_seed(3)
    ours = tosa_encode(model, pixels, MergeSpec()).x
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    if name == "drop path":
        assert not torch.allclose(tosa_encode(model, pixels, MergeSpec()).x, theirs, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_equal_those_of_the_library(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)

    def gradients(features: Tensor) -> list[Tensor | None]:
        weights = list(model.parameters())
        return list(torch.autograd.grad(features.square().sum(), weights, allow_unused=True))

    theirs = gradients(FAMILIES[name].forward(model, pixels))
    ours = gradients(tosa_encode(model, pixels, MergeSpec()).x)
    assert sum(gradient is not None for gradient in ours) > 5 * LAYERS
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-3)
