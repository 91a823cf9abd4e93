"""What holds for every merging method. Each rule takes a case, so that a broken method can be put in."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from tests.tosa.cases import (
    GRID,
    HEADS,
    LAYERS,
    PATCHES,
    WEIGHTS,
    WIDTH,
    Case,
    images,
    one_step,
    run,
    same,
    scene,
    tensors,
)
from tests.tosa.encoder import encode
from tosa import MergeStep, Tokens, make_plan, recover, spatial_tokens, unmerge

# Counts


def rule_counts_follow_the_plan(case: Case, num_prefix: int = 0) -> None:
    plan, seen = case.plan(num_prefix), []

    def counting(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
        merged = case.method.merge(tokens, metric, step)
        seen.append((step.layer, tokens.x.shape[1], merged.x.shape[1]))
        return merged

    tokens = run(case.with_merge(counting), num_prefix)
    assert tokens.x.shape[1] == plan.counts[-1]
    assert seen == [(s.layer, plan.counts[s.layer], plan.counts[s.layer + 1]) for s in plan.steps if s]
    assert tokens.grid == (plan.grids[-1] if plan.grids else None)


def rule_sizes_count_the_patches(case: Case, num_prefix: int = 0) -> None:
    """Whatever a token stands for, and no patch is lost without a trace."""
    tokens = run(case, num_prefix)
    n = tokens.x.shape[1]
    for size, source in zip(tokens.size, tokens.source, strict=True):
        kept = source[source >= 0]
        assert torch.equal(size[num_prefix:], torch.bincount(kept, minlength=n)[num_prefix:].float())
        assert size.sum() + (source < 0).sum() == PATCHES + num_prefix
    assert tokens.has_holes or (tokens.source >= 0).all()
    assert tokens.is_weighted or (tokens.size == 1).all()


def rule_schedules_keep_the_target(case: Case) -> None:
    """However the removals are spread, the end is what was asked for, and what was planned is done."""
    asked = [case.asking(schedule=schedule) for schedule in ("decreasing", "increasing", 0.5)]
    asked += [case.asking(layers=layers) for layers in ((0, 2), (1, 2, 3))]
    for each in asked if case.method.merges else []:
        plan = each.plan()
        layers = each.spec.layers or range(LAYERS)
        assert all(layer in layers for layer, (a, b) in enumerate(pairwise(plan.counts)) if a != b)
        if case.exact:
            assert plan.tokens_out == round(0.3 * PATCHES)
        rule_counts_follow_the_plan(each)


# Tokens


def rule_prefix_is_protected(case: Case, num_prefix: int = 5) -> None:
    tokens, metric, step = one_step(case, num_prefix)
    merged = case.method.merge(tokens, metric, step)
    assert torch.equal(merged.x[:, :num_prefix], tokens.x[:, :num_prefix])
    assert (merged.size[:, :num_prefix] == 1).all()
    assert ((merged.source >= num_prefix) | (merged.source == -1)).all()


def rule_patches_are_where_the_map_says(case: Case) -> None:
    """Mark each patch in a channel of its own: a token has the marks of exactly the patches it holds.

    A method that mixes softly only has to give every patch whole weights.
    """
    x = torch.cat([images(2), torch.eye(PATCHES).expand(2, -1, -1)], dim=-1)
    tokens = Tokens.start(x, GRID, spatial=scene(2))
    _, _, step = one_step(case)
    merged = case.method.merge(tokens, case.metric(tokens), step)
    if merged.blend is not None:
        torch.testing.assert_close(merged.blend.weight.sum(-1), torch.ones(2, PATCHES))
        return
    marks = merged.x[..., WIDTH:] != 0
    for image in range(2):
        for n in range(marks.shape[1]):
            assert torch.equal(marks[image, n], merged.source[image] == n)


def rule_a_token_stands_where_one_of_its_patches_is(case: Case) -> None:
    """But where a method mixes softly, which has a place and no patches of its own."""
    tokens = run(case.asking(order="merge"), 2, track_position=True)
    assert tokens.position is not None and (tokens.position[:, :2] == 0).all()
    holder = tokens.source.gather(1, tokens.position[:, 2:])
    assert tokens.blend is not None or (holder == torch.arange(2, tokens.x.shape[1])).all()


# Dense use


def rule_dense_features_come_back(case: Case) -> None:
    tokens = run(case, 1)
    for dense in (unmerge(tokens), recover(tokens)):
        assert dense.shape == (3, PATCHES, WIDTH)
        assert dense.isfinite().all()
    for image in range(3):
        source = tokens.source[image]
        own = tokens.x[image, source[source >= 0]]
        assert torch.equal(unmerge(tokens)[image, source >= 0], own)
        assert (unmerge(tokens)[image, source < 0] == 0).all()
        assert tokens.blend is not None or torch.equal(recover(tokens)[image, source >= 0], own)


def rule_regions_come_back(case: Case) -> None:
    """A map of two regions, merged to a half in one step, is nearly right everywhere on the full grid."""
    if case.method.name == "random" or not case.method.merges:
        return
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    region = ((rows - 4) ** 2 + (columns - 6) ** 2 < 20).long()
    colours = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    noise = 0.05 * torch.randn(1, 144, WIDTH, generator=torch.Generator().manual_seed(1))
    tokens = Tokens.start(
        colours[region.flatten()] + noise, (12, 12), spatial=spatial_tokens(region[None] * 3, dim=12)
    )
    spec = replace(case.spec, keep_ratio=0.5, layers=(1,))
    step = make_plan(spec, replace(case.plan().shape, grid=(12, 12))).steps[1]
    assert step is not None
    dense = recover(case.method.merge(tokens, case.metric(tokens), step))
    right = torch.cdist(dense, colours[None]).argmin(-1)[0] == region.flatten()
    assert right.float().mean() >= 0.9


# Nothing to do


def rule_an_empty_batch_is_empty(case: Case) -> None:
    tokens, full = run(case, 1, batch=0), run(case, 1, batch=1)
    for name, value in tensors(tokens).items():
        assert value.shape == (0, *tensors(full)[name].shape[1:])
    assert recover(tokens).shape == unmerge(tokens).shape == (0, PATCHES, WIDTH)


def rule_a_step_of_nothing_keeps_every_token(case: Case) -> None:
    """Also of a single patch, which nothing can be removed from. The order may change."""
    tokens, metric, step = one_step(case, 1)
    patch = Tokens.start(images(1)[:, :2], (1, 1), 1, scene(1)[:, :1])
    for before, keys in ((tokens, metric), (patch, case.metric(patch))):
        step = replace(step, r=0 if before is tokens else 1, r_hw=(0, 0))
        after = case.method.merge(before, keys, step)
        assert torch.equal(unmerge(after), unmerge(before))
        assert after.size.sort().values.equal(before.size.sort().values)


# Purity


def rule_neighbours_do_not_matter(case: Case) -> None:
    together = run(case)
    for i in range(3):
        x, spatial = images(3)[i : i + 1], scene(3)[i : i + 1]
        with torch.inference_mode():
            alone = encode(WEIGHTS, x, case.plan(), HEADS, spatial, case.method)
        assert torch.equal(alone.source[0], together.source[i])
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-5, atol=1e-5)


def rule_inputs_are_not_modified(case: Case) -> None:
    tokens, metric, step = one_step(case)
    before = {name: value.clone() for name, value in tensors(tokens).items()}
    metric_before = metric.clone()
    case.method.merge(tokens, metric, step)
    assert all(torch.equal(value, before[name]) for name, value in tensors(tokens).items())
    assert torch.equal(metric, metric_before)


def rule_same_input_same_output(case: Case) -> None:
    first = run(case)
    assert all(same(run(case), first) for _ in range(3))


def rule_threads_do_not_mix(case: Case) -> None:
    cases = [case]
    if case.method.merges:
        cases = [case.asking(keep_ratio=keep) for keep in (0.3, 0.5, 0.7, 0.9)]
    serial = [run(each) for each in cases]
    jobs = [i % len(cases) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: run(cases[i]), jobs))
    assert all(same(result, serial[i]) for i, result in zip(jobs, results, strict=True))


def rule_the_source_is_only_for_those_who_ask(case: Case) -> None:
    case = case.asking(order="merge")
    tracked, untracked = run(case, 1), run(case, 1, track_source=False)
    assert untracked.source.shape == (3, 0)
    assert torch.equal(tracked.x, untracked.x)
    assert torch.equal(tracked.size, untracked.size)


# Precision


def rule_choices_do_not_depend_on_the_precision_around(case: Case) -> None:
    """Half-precision values or autocast: the choice is made in float32, and values keep their dtype."""
    tokens, metric, step = one_step(case)
    plain = case.method.merge(tokens, metric, step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = case.method.merge(tokens, metric, step)
    assert torch.equal(inside.source, plain.source)
    torch.testing.assert_close(inside.x, plain.x, rtol=1e-5, atol=1e-5)
    half, full = (tokens.x.bfloat16(), tokens.x.bfloat16().float())
    halves, floats = (
        case.method.merge(replace(tokens, x=x), metric if case.method.site == "before_mlp" else x, step)
        for x in (half, full)
    )
    assert halves.x.dtype is torch.bfloat16
    assert halves.size.dtype is torch.float32
    assert torch.equal(halves.source, floats.source)


PREFIX_RULES = [rule_counts_follow_the_plan, rule_sizes_count_the_patches]
RULES = [
    rule_schedules_keep_the_target,
    rule_prefix_is_protected,
    rule_patches_are_where_the_map_says,
    rule_a_token_stands_where_one_of_its_patches_is,
    rule_dense_features_come_back,
    rule_regions_come_back,
    rule_an_empty_batch_is_empty,
    rule_a_step_of_nothing_keeps_every_token,
    rule_neighbours_do_not_matter,
    rule_inputs_are_not_modified,
    rule_same_input_same_output,
    rule_threads_do_not_mix,
    rule_the_source_is_only_for_those_who_ask,
    rule_choices_do_not_depend_on_the_precision_around,
]
