"""Every rule catches the broken method that was made for it."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch._dynamo.exc
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from tests.tosa.cases import CASES, Case, Merge
from tests.tosa.graph_rules import (
    GRAPH_RULES,
    rule_an_encoder_compiles_once,
    rule_an_encoder_exports,
    rule_an_encoder_traces,
    rule_shapes_need_no_data,
)
from tests.tosa.rules import (
    PREFIX_RULES,
    RULES,
    rule_a_step_of_nothing_keeps_every_token,
    rule_a_token_stands_where_one_of_its_patches_is,
    rule_an_empty_batch_is_empty,
    rule_choices_do_not_depend_on_the_precision_around,
    rule_counts_follow_the_plan,
    rule_dense_features_come_back,
    rule_inputs_are_not_modified,
    rule_neighbours_do_not_matter,
    rule_patches_are_where_the_map_says,
    rule_prefix_is_protected,
    rule_regions_come_back,
    rule_same_input_same_output,
    rule_schedules_keep_the_target,
    rule_sizes_count_the_patches,
    rule_the_source_is_only_for_those_who_ask,
    rule_threads_do_not_mix,
)
from tosa import METHODS, MergeStep, Tokens, apply, bipartite, cosine, weighted_mean

Rule = Callable[[Case], None]

tome, tome_case = METHODS["tome"].merge, CASES["tome"]


def removes_one_too_few(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric, replace(step, r=step.r - 1))


def forgets_sizes(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(tokens, metric, step)
    return replace(merged, size=torch.ones_like(merged.size))


def forgets_that_sizes_differ(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return replace(tome(tokens, metric, step), is_weighted=False)


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


calls = {"so far": 0}


def counts_its_calls(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    calls["so far"] += 1
    merged = tome(tokens, metric, step)
    return replace(merged, x=merged.x + 1e-3 * calls["so far"])


def loses_the_place(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(tokens, metric, step)
    assert merged.position is not None
    return replace(merged, position=merged.position.flip(1))


def forgets_the_holes(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return replace(METHODS["saint"].merge(tokens, metric, replace(step, options=None)), has_holes=False)


def merges_like_and_unlike(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return apply(tokens, bipartite(torch.zeros_like(cosine(metric, 0)), step.r, 0), weighted_mean)


def needs_the_source(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(tokens, metric, step)
    return replace(merged, x=merged.x + merged.source.shape[1])


def removes_one_at_least(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric, replace(step, r=max(1, step.r)))


def bakes_the_batch_in(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    merged = tome(tokens, metric, step)
    return replace(merged, size=merged.size + len(metric))


def guesses_the_length(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    return tome(tokens, metric.reshape(metric.shape[0], -1, metric.shape[2]), step)


def compares_in_the_dtype_around(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    metric = metric + 10  # scores that differ little, as in a smooth image
    return apply(tokens, bipartite(metric[:, 0::2] @ metric[:, 1::2].mT, step.r, 0), weighted_mean)


Caught = type[BaseException]
BROKEN: list[tuple[Rule, Merge, Caught, str | None]] = [
    (rule_counts_follow_the_plan, removes_one_too_few, AssertionError, None),
    (rule_sizes_count_the_patches, forgets_sizes, AssertionError, None),
    (rule_sizes_count_the_patches, forgets_the_holes, RuntimeError, "index -1 is out of bounds"),
    (rule_sizes_count_the_patches, forgets_that_sizes_differ, AssertionError, None),
    (rule_schedules_keep_the_target, removes_one_too_few, AssertionError, None),
    (rule_prefix_is_protected, ignores_the_prefix, AssertionError, None),
    (rule_patches_are_where_the_map_says, scrambles_the_map, AssertionError, None),
    (rule_a_token_stands_where_one_of_its_patches_is, loses_the_place, AssertionError, None),
    (rule_dense_features_come_back, forgets_the_holes, RuntimeError, "index -1 is out of bounds"),
    (rule_regions_come_back, scrambles_the_map, AssertionError, None),
    (rule_regions_come_back, merges_like_and_unlike, AssertionError, None),
    (rule_an_empty_batch_is_empty, guesses_the_length, RuntimeError, "ambiguous|unspecified"),
    (rule_a_step_of_nothing_keeps_every_token, removes_one_at_least, AssertionError, None),
    (rule_neighbours_do_not_matter, averages_the_batch, AssertionError, None),
    (rule_inputs_are_not_modified, writes_into_its_input, AssertionError, None),
    (rule_same_input_same_output, draws_lots, AssertionError, None),
    (rule_threads_do_not_mix, keeps_state, AssertionError, None),
    (rule_the_source_is_only_for_those_who_ask, needs_the_source, AssertionError, None),
    (rule_choices_do_not_depend_on_the_precision_around, compares_in_the_dtype_around, AssertionError, None),
    (rule_an_encoder_compiles_once, branches_on_values, torch._dynamo.exc.Unsupported, "[Dd]ata-dependent"),
    (rule_an_encoder_compiles_once, counts_its_calls, AssertionError, None),
    (rule_an_encoder_exports, branches_on_values, RuntimeError, "[Dd]ata-dependent"),
    (rule_an_encoder_exports, counts_its_calls, AssertionError, None),
    (rule_an_encoder_exports, bakes_the_batch_in, torch._dynamo.exc.UserError, "batch = 3"),
    (rule_an_encoder_traces, bakes_the_batch_in, AssertionError, None),
    (rule_shapes_need_no_data, branches_on_values, DataDependentOutputException, None),
    (rule_shapes_need_no_data, removes_a_number_it_counts, DataDependentOutputException, None),
    (rule_shapes_need_no_data, indexes_by_a_mask, DynamicOutputShapeException, None),
]


SLOW = [(rule_an_encoder_exports, counts_its_calls), (rule_an_encoder_exports, bakes_the_batch_in)]


@pytest.mark.parametrize(
    ("rule", "broken", "caught", "words"),
    [pytest.param(*case, marks=pytest.mark.long if case[:2] in SLOW else ()) for case in BROKEN],
)
def test_every_rule_can_fail(rule: Rule, broken: Merge, caught: Caught, words: str | None) -> None:
    """By an assertion; where graphs are taken, also by the refusal of torch that the row names."""
    with pytest.raises(caught, match=words):
        rule(tome_case.with_merge(broken))


def test_every_rule_has_its_broken_method() -> None:
    assert {rule for rule, *_ in BROKEN} == {*PREFIX_RULES, *RULES, *GRAPH_RULES}
