"""What the rules run on: every method with its defaults, some with options, a small encoder, inputs."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from tests.tosa.encoder import encode, random_weights
from tosa import (
    METHODS,
    EncoderShape,
    MergeMethod,
    MergePlan,
    MergeSpec,
    MergeStep,
    Tokens,
    make_plan,
    spatial_tokens,
)

LAYERS, HEADS, WIDTH, MLP = 4, 2, 32, 48
GRID = (6, 7)
PATCHES = GRID[0] * GRID[1]
WEIGHTS = random_weights(LAYERS, WIDTH, MLP)

Merge = Callable[[Tokens, Tensor, MergeStep], Tokens]


@dataclass(frozen=True)
class Case:
    """A method and what to ask of it."""

    method: MergeMethod
    spec: MergeSpec

    def plan(self, num_prefix: int = 0, num_layers: int = LAYERS) -> MergePlan:
        return make_plan(self.spec, EncoderShape(num_layers, GRID, num_prefix, WIDTH, MLP))

    def asking(self, **changes: object) -> "Case":
        return replace(self, spec=replace(self.spec, **changes))

    def with_merge(self, merge: Merge) -> "Case":
        return replace(self, method=replace(self.method, merge=merge))

    def metric(self, tokens: Tokens) -> Tensor:
        """Stand in for the keys of a layer, or give the residual stream, as the method has it."""
        return tokens.x if self.method.site == "before_block" else tokens.x[..., :16] + 0.1

    @property
    def exact(self) -> bool:
        """Any number of tokens can be left, not only whole grids."""
        return self.method.merges and not self.method.keeps_grid


def case_of(method: MergeMethod) -> Case:
    """Give the case that every method has: its defaults."""
    return Case(method, MergeSpec(method.name, keep_ratio=0.3 if method.merges else None))


# One row for each other way in which a method can run.
SPECS = {
    "tosa without its visual term": MergeSpec("tosa", keep_ratio=0.3, alpha=0.0),
    "tosa that knows when": MergeSpec("tosa", keep_ratio=0.3, alpha="auto"),
    "tofu that only fuses": MergeSpec("tofu", keep_ratio=0.3, options={"switch_layer": 0}),
    "tofu that only drops": MergeSpec("tofu", keep_ratio=0.3, options={"switch_layer": LAYERS}),
    "pitome-bsm": MergeSpec("pitome", keep_ratio=0.3, options={"variant": "bsm"}),
    "cubist with depth": MergeSpec("cubist", keep_ratio=0.3, options={"depth_weight": 0.5}),
}
CASES = {name: case_of(method) for name, method in METHODS.items()}
CASES |= {name: Case(METHODS[spec.method], spec) for name, spec in SPECS.items()}


def images(batch: int, num_prefix: int = 0, seed: int = 7) -> Tensor:
    return torch.randn(batch, num_prefix + PATCHES, WIDTH, generator=torch.Generator().manual_seed(seed))


def scene(batch: int, seed: int = 8) -> Tensor:
    z = torch.randint(0, 6, (batch, *GRID), generator=torch.Generator().manual_seed(seed))
    return spatial_tokens(z, dim=12)


def run(case: Case, num_prefix: int = 0, batch: int = 3, **tracking: bool) -> Tokens:
    """Encode a few images."""
    x, plan = images(batch, num_prefix), case.plan(num_prefix)
    with torch.inference_mode():
        return encode(WEIGHTS, x, plan, HEADS, scene(batch), case.method, **tracking)


def one_step(case: Case, num_prefix: int = 0, seed: int = 7) -> tuple[Tokens, Tensor, MergeStep]:
    """Tokens, a metric and a step; the tokens have different sizes unless the method needs a whole grid."""
    tokens = Tokens.start(images(2, num_prefix, seed), GRID, num_prefix, scene(2, seed + 1))
    steps = [step for step in case.plan(num_prefix).steps if step]
    step = steps[0] if steps else MergeStep(0)
    step = step if step.alpha == "auto" else replace(step, alpha=0.5)
    if case.exact:
        tokens = METHODS["tome"].merge(tokens, tokens.x, MergeStep(0, r=9))
        step = replace(step, layer=1, r=8)
    return tokens, case.metric(tokens), step


def tensors(value: object, path: str = "") -> dict[str, Tensor]:
    """Find all tensors of a dataclass and of those it holds, by path."""
    if isinstance(value, Tensor):
        return {path: value}
    if not is_dataclass(value):
        return {}
    return {
        name: tensor
        for field in fields(value)
        for name, tensor in tensors(getattr(value, field.name), f"{path}.{field.name}").items()
    }


def plain_fields(tokens: Tokens) -> dict[str, object]:
    values = {field.name: getattr(tokens, field.name) for field in fields(tokens)}
    return {name: value for name, value in values.items() if not tensors(value)}


def same(a: Tokens, b: Tokens) -> bool:
    ours, theirs = tensors(a), tensors(b)
    equal = ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    return equal and plain_fields(a) == plain_fields(b)
