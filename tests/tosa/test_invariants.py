"""What holds for every merging method: the rules, and what is true of some of them only."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tosa.plan
from tests.tosa import encoder
from tests.tosa.cases import (
    CASES,
    GRID,
    HEADS,
    LAYERS,
    WEIGHTS,
    Case,
    case_of,
    images,
    run,
    same,
    scene,
)
from tests.tosa.encoder import encode_plain
from tests.tosa.graph_rules import GRAPH_RULES
from tests.tosa.rules import PREFIX_RULES, RULES
from tosa import (
    METHODS,
    MergeMethod,
    MergeStep,
    Tokens,
    apply,
    attention,
    bipartite,
    cosine,
    unmerge,
    weighted_mean,
)

Rule = Callable[[Case], None]

LIKE_ANOTHER = ("none", "tome", "tofu", "pitome", "saint", "adaptiv", "vomix", "expedite", "pool", "random")
"""Methods whose graphs hold little that those of tosa and cubist do not hold."""


def marks_of(name: str) -> Sequence[pytest.MarkDecorator]:
    """Leave the slow rules of graphs to `make test-long` where another method stands for this one."""
    return () if name in METHODS and name not in LIKE_ANOTHER else (pytest.mark.long,)


@pytest.mark.parametrize("num_prefix", [0, 1, 2, 5])
@pytest.mark.parametrize("rule", PREFIX_RULES)
@pytest.mark.parametrize("name", CASES)
def test_rules_with_any_prefix(rule: Callable[[Case, int], None], name: str, num_prefix: int) -> None:
    rule(CASES[name], num_prefix)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", CASES)
def test_rules(rule: Rule, name: str) -> None:
    rule(CASES[name])


@pytest.mark.parametrize("rule", GRAPH_RULES)
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in CASES])
def test_rules_of_graphs(rule: Rule, name: str) -> None:
    rule(CASES[name])


def merge_by_features(tokens: Tokens, metric: Tensor, step: MergeStep) -> Tokens:
    """Match as ToMe does, by the residual stream instead of the keys."""
    assignment = bipartite(cosine(tokens.x, tokens.num_prefix), step.r, tokens.num_prefix)
    return apply(tokens, assignment, weighted_mean)


@pytest.mark.parametrize(
    "rule",
    [*PREFIX_RULES, *RULES, *(pytest.param(rule, marks=pytest.mark.long) for rule in GRAPH_RULES)],
)
def test_a_toy_method_inherits_every_rule(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function above, one entry here."""
    toy = MergeMethod(name="toy", title="Toy", paper=None, site="before_mlp", merge=merge_by_features)
    monkeypatch.setattr(tosa.plan, "METHODS", {**METHODS, "toy": toy})
    rule(case_of(toy))


@pytest.mark.parametrize("num_prefix", [0, 1])
@pytest.mark.parametrize("name", METHODS)
def test_no_steps_is_bit_equal_to_the_plain_encoder(name: str, num_prefix: int) -> None:
    tokens = run(case_of(METHODS[name]).asking(keep_ratio=1.0), num_prefix)
    assert torch.equal(tokens.x, encode_plain(WEIGHTS, images(3, num_prefix), LAYERS, HEADS))
    assert tokens.grid == GRID


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.method.merges])
def test_some_steps_are_not(name: str) -> None:
    tokens = run(CASES[name].asking(keep_ratio=0.9))
    plain = encode_plain(WEIGHTS, images(3), LAYERS, HEADS)
    assert not torch.allclose(unmerge(tokens), plain, atol=1e-3)


def test_tosa_with_alpha_1_equals_tome() -> None:
    tosa = CASES["tosa"].asking(alpha=1.0)
    assert same(run(tosa), run(CASES["tome"]))
    assert not torch.equal(run(tosa.asking(alpha=0.9)).source, run(tosa).source)


@pytest.mark.parametrize("name", CASES)
def test_attention_is_weighed_only_once_sizes_can_differ(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it changes nothing: with every size 1, weighing is plain attention."""
    case, masks = CASES[name].asking(prop_attn=True), list[bool]()

    def counting(q: Tensor, k: Tensor, v: Tensor, size: Tensor | None) -> Tensor:
        masks.append(size is not None)
        return attention(q, k, v, size)

    monkeypatch.setattr(encoder, "attention", counting)
    lazy, seen = run(case), masks.copy()
    monkeypatch.setattr(encoder, "Tokens", WeighedFromTheStart)
    eager = run(case)
    assert torch.equal(lazy.source, eager.source)
    torch.testing.assert_close(lazy.x, eager.x, rtol=1e-5, atol=1e-5)
    assert all(masks[LAYERS:]) == case.method.merges and seen == sorted(seen)
    drops = name in ("none", "saint", "random", "tofu that only drops")
    late = case.method.site == "before_mlp" or case.method.first_layer > 0
    assert (not any(seen)) if drops else (any(seen) and seen[0] != late)


class WeighedFromTheStart:
    @staticmethod
    def start(*args: Any, **kwargs: Any) -> Tokens:
        return replace(Tokens.start(*args, **kwargs), is_weighted=True)


@pytest.mark.parametrize("name", ["tome", "tosa", "tofu that only fuses", "pitome-bsm"])
def test_merging_a_duplicate_leaves_attention_unchanged(name: str) -> None:
    x, spatial, case = images(1), scene(1), CASES[name]
    x[:, 4], spatial[:, 4] = x[:, 11], spatial[:, 11]
    tokens = Tokens.start(x, GRID, spatial=spatial)
    merged = case.method.merge(tokens, x, MergeStep(0, r=1, alpha=0.5, options=case.plan().options))
    assert merged.source[0, 4] == merged.source[0, 11]

    def attend(keys: Tensor, size: Tensor | None) -> Tensor:
        return attention(x[:, None], keys[:, None], keys[:, None], size)

    torch.testing.assert_close(attend(merged.x, merged.size), attend(x, None), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(attend(merged.x, None), attend(x, None), rtol=1e-5, atol=1e-5)
