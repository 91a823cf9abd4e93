"""What holds for every merging method, and for each rule a broken method that it catches."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tosa.encoder import encode, encode_plain, random_weights
from tosa import (
    METHODS,
    EncoderShape,
    MergeMethod,
    MergePlan,
    MergeSpec,
    MergeStep,
    Tokens,
    attention,
    make_plan,
    spatial_tokens,
    unmerge,
)

LAYERS, HEADS, WIDTH, MLP = 3, 2, 32, 48
GRID = (6, 7)
PATCHES = GRID[0] * GRID[1]
WEIGHTS = random_weights(LAYERS, WIDTH, MLP)
PREFIXES = [0, 1, 2, 5]
# One row per method: what the rules below run it with.
SPECS = {
    "none": MergeSpec(),
    "tome": MergeSpec("tome", keep_ratio=0.25),
    "tosa": MergeSpec("tosa", keep_ratio=0.25),
}
MERGING = [name for name, method in METHODS.items() if method.merges]

Merge = Callable[[Tokens, Tensor, MergeStep], Tokens]


def plan_for(spec: MergeSpec, num_prefix: int = 0) -> MergePlan:
    return make_plan(spec, EncoderShape(LAYERS, GRID, num_prefix, WIDTH, MLP))


def images(batch: int, num_prefix: int = 0) -> Tensor:
    return torch.randn(batch, num_prefix + PATCHES, WIDTH, generator=torch.Generator().manual_seed(7))


def scene(batch: int) -> Tensor:
    z = torch.randint(0, 6, (batch, *GRID), generator=torch.Generator().manual_seed(8))
    return spatial_tokens(z, dim=12)


def run(method: MergeMethod, num_prefix: int = 0, batch: int = 3, spec: MergeSpec | None = None) -> Tokens:
    plan = plan_for(spec or SPECS[method.name], num_prefix)
    with torch.inference_mode():
        return encode(WEIGHTS, images(batch, num_prefix), plan, HEADS, scene(batch), method)


def one_step(num_prefix: int = 0) -> tuple[Tokens, Tensor, MergeStep]:
    """Tokens of different sizes, a metric and a step."""
    tokens = Tokens.start(images(2, num_prefix), GRID, num_prefix, scene(2))
    metric = tokens.x[..., :16] + 0.1
    tokens = METHODS["tome"].merge(tokens, metric, MergeStep(0, r=9))
    return tokens, tokens.x[..., :16] + 0.1, MergeStep(1, r=8, alpha=0.5)


def same(a: Tokens, b: Tokens) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(Tokens)]
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def tensors(tokens: Tokens) -> dict[str, Tensor]:
    values = {field.name: getattr(tokens, field.name) for field in fields(Tokens)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def shapes(tokens: Tokens) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors(tokens).items()}


def test_every_method_has_a_row() -> None:
    assert set(SPECS) == set(METHODS)


# The rules. Each takes a method, so that the broken ones at the end can be put in.


def rule_counts_follow_the_plan(method: MergeMethod, num_prefix: int = 0) -> None:
    plan, seen = plan_for(SPECS[method.name], num_prefix), []

    def counting(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
        merged = method.merge(tokens, metric, step)
        seen.append((step.layer, tokens.x.shape[1], merged.x.shape[1]))
        return merged

    tokens = run(replace(method, merge=counting), num_prefix)
    assert tokens.x.shape[1] == plan.counts[-1]
    assert seen == [(s.layer, plan.counts[s.layer], plan.counts[s.layer + 1]) for s in plan.steps if s]


def rule_sizes_count_the_patches(method: MergeMethod, num_prefix: int = 0) -> None:
    tokens = run(method, num_prefix)
    n = tokens.x.shape[1]
    for size, source in zip(tokens.size, tokens.source, strict=True):
        counted = torch.bincount(source, minlength=n).float()
        assert torch.equal(size[num_prefix:], counted[num_prefix:])
        assert size.sum() == PATCHES + num_prefix


def rule_prefix_is_protected(method: MergeMethod, num_prefix: int = 5) -> None:
    tokens, metric, step = one_step(num_prefix)
    merged = method.merge(tokens, metric, step)
    assert torch.equal(merged.x[:, :num_prefix], tokens.x[:, :num_prefix])
    assert (merged.size[:, :num_prefix] == 1).all()
    assert (merged.source >= num_prefix).all()


def rule_neighbours_do_not_matter(method: MergeMethod) -> None:
    plan = plan_for(SPECS[method.name])
    together = run(method)
    for i in range(3):
        x, spatial = images(3)[i : i + 1], scene(3)[i : i + 1]
        with torch.inference_mode():
            alone = encode(WEIGHTS, x, plan, HEADS, spatial, method)
        assert torch.equal(alone.source[0], together.source[i])
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-5, atol=1e-5)


def rule_inputs_are_not_modified(method: MergeMethod) -> None:
    tokens, metric, step = one_step()
    before = replace(tokens, **{name: value.clone() for name, value in tensors(tokens).items()})
    metric_before = metric.clone()
    method.merge(tokens, metric, step)
    assert same(tokens, before)
    assert torch.equal(metric, metric_before)


def rule_same_input_same_output(method: MergeMethod) -> None:
    first = run(method)
    assert all(same(run(method), first) for _ in range(3))


def rule_threads_do_not_mix(method: MergeMethod) -> None:
    if method.merges:
        specs = [replace(SPECS[method.name], keep_ratio=keep) for keep in (0.2, 0.4, 0.6, 0.8)]
    else:
        specs = [SPECS[method.name]]
    serial = [run(method, spec=spec) for spec in specs]
    jobs = [i % len(specs) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: run(method, spec=specs[i]), jobs))
    assert all(same(result, serial[i]) for i, result in zip(jobs, results, strict=True))


def rule_compiles_as_one_graph(method: MergeMethod) -> None:
    torch.compiler.reset()
    compiled = torch.compile(method.merge, backend="eager", fullgraph=True)
    tokens, metric, step = one_step(num_prefix=1)
    assert same(compiled(tokens, metric, step), method.merge(tokens, metric, step))


def rule_shapes_need_no_data(method: MergeMethod) -> None:
    """Run on tensors without values: reading one, or a shape that depends on one, raises."""
    tokens, metric, step = one_step(num_prefix=1)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(value) for name, value in tensors(tokens).items()}
        merged = method.merge(replace(tokens, **fake), mode.from_tensor(metric), step)
    real = method.merge(tokens, metric, step)
    assert shapes(merged) == shapes(real)


def rule_patches_are_where_the_map_says(method: MergeMethod) -> None:
    """Merged tokens hold the mean of exactly the patches that point to them."""
    _, _, step = one_step()
    tokens = Tokens.start(images(2), GRID, spatial=scene(2))
    merged = method.merge(tokens, tokens.x[..., :16], step)
    for image in range(2):
        for n in range(merged.x.shape[1]):
            mine = tokens.x[image, merged.source[image] == n]
            torch.testing.assert_close(merged.x[image, n], mine.mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_prefix", PREFIXES)
@pytest.mark.parametrize("rule", [rule_counts_follow_the_plan, rule_sizes_count_the_patches])
@pytest.mark.parametrize("name", METHODS)
def test_rules_with_any_prefix(rule: Callable[..., None], name: str, num_prefix: int) -> None:
    rule(METHODS[name], num_prefix)


RULES = [
    rule_prefix_is_protected,
    rule_neighbours_do_not_matter,
    rule_inputs_are_not_modified,
    rule_same_input_same_output,
    rule_threads_do_not_mix,
    rule_compiles_as_one_graph,
    rule_shapes_need_no_data,
    rule_patches_are_where_the_map_says,
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", METHODS)
def test_rules(rule: Callable[[MergeMethod], None], name: str) -> None:
    rule(METHODS[name])


@pytest.mark.parametrize("num_prefix", [0, 1])
@pytest.mark.parametrize("name", METHODS)
def test_no_steps_is_bit_equal_to_the_plain_encoder(name: str, num_prefix: int) -> None:
    tokens = run(METHODS[name], num_prefix, spec=MergeSpec(name, keep_ratio=1.0))
    assert torch.equal(tokens.x, encode_plain(WEIGHTS, images(3, num_prefix), LAYERS, HEADS))
    assert tokens.grid == GRID


@pytest.mark.parametrize("name", MERGING)
def test_some_steps_are_not(name: str) -> None:
    tokens = run(METHODS[name], spec=MergeSpec(name, keep_ratio=0.9))
    plain = encode_plain(WEIGHTS, images(3), LAYERS, HEADS)
    assert not torch.allclose(unmerge(tokens), plain, atol=1e-3)


def test_tosa_with_alpha_1_equals_tome() -> None:
    tosa = run(METHODS["tosa"], spec=MergeSpec("tosa", keep_ratio=0.25, alpha=1.0))
    assert same(tosa, run(METHODS["tome"]))
    mixed = run(METHODS["tosa"], spec=MergeSpec("tosa", keep_ratio=0.25, alpha=0.9))
    assert not torch.equal(mixed.source, tosa.source)


@pytest.mark.parametrize("name", MERGING)
def test_merging_a_duplicate_leaves_attention_unchanged(name: str) -> None:
    x, spatial = images(1), scene(1)
    x[:, 4], spatial[:, 4] = x[:, 11], spatial[:, 11]
    tokens = Tokens.start(x, GRID, spatial=spatial)
    merged = METHODS[name].merge(tokens, x, MergeStep(0, r=1, alpha=0.5))
    assert merged.source[0, 4] == merged.source[0, 11]

    def attend(keys: Tensor, size: Tensor | None) -> Tensor:
        return attention(x[:, None], keys[:, None], keys[:, None], size)

    torch.testing.assert_close(attend(merged.x, merged.size), attend(x, None), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(attend(merged.x, None), attend(x, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MERGING)
def test_half_precision_chooses_in_float32_and_keeps_its_dtype(name: str) -> None:
    tokens, metric, step = one_step()
    half = replace(tokens, x=tokens.x.bfloat16())
    merged = METHODS[name].merge(half, metric, step)
    assert merged.x.dtype is torch.bfloat16
    assert merged.size.dtype is torch.float32
    assert torch.equal(merged.source, METHODS[name].merge(tokens, metric, step).source)


# Broken methods: each rule must catch the one made for it.

tome = METHODS["tome"].merge


def removes_one_too_few(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric, replace(step, r=step.r - 1))


def forgets_sizes(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(tokens, metric, step)
    return replace(merged, size=torch.ones_like(merged.size))


def ignores_the_prefix(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(replace(tokens, num_prefix=0), metric, step)
    return replace(merged, num_prefix=tokens.num_prefix)


def averages_the_batch(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric.mean(0, keepdim=True).expand_as(metric), step)


def writes_into_its_input(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    tokens.x.mul_(2)
    return tome(tokens, metric, step)


def draws_lots(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, torch.rand_like(metric), step)


shared: dict[str, MergeStep] = {}


def keeps_state(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    shared["step"] = step
    time.sleep(0.002)
    return tome(tokens, metric, shared["step"])


def branches_on_values(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric, step) if metric.sum() > 0 else tokens


def removes_a_number_it_counts(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric, replace(step, r=int((metric > 0.9).sum().item()) // 100))


def indexes_by_a_mask(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return replace(tokens, x=tokens.x[:, metric[0, :, 0] > 0])


def scrambles_the_map(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(tokens, metric, step)
    return replace(merged, source=merged.source.flip(1))


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        (rule_counts_follow_the_plan, removes_one_too_few),
        (rule_sizes_count_the_patches, forgets_sizes),
        (rule_prefix_is_protected, ignores_the_prefix),
        (rule_neighbours_do_not_matter, averages_the_batch),
        (rule_inputs_are_not_modified, writes_into_its_input),
        (rule_same_input_same_output, draws_lots),
        (rule_threads_do_not_mix, keeps_state),
        (rule_compiles_as_one_graph, branches_on_values),
        (rule_shapes_need_no_data, branches_on_values),
        (rule_shapes_need_no_data, removes_a_number_it_counts),
        (rule_shapes_need_no_data, indexes_by_a_mask),
        (rule_patches_are_where_the_map_says, scrambles_the_map),
    ],
)
def test_every_rule_can_fail(rule: Callable[[MergeMethod], None], broken: Merge) -> None:
    # A dynamo refusal or a shape error is as good a catch as a failed assertion.
    with pytest.raises((AssertionError, RuntimeError)):
        rule(replace(METHODS["tome"], merge=broken))
