"""What holds for every merging method where its graph is taken: compiled, exported, without data."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.tosa.cases import HEADS, WEIGHTS, Case, images, one_step, scene, tensors
from tests.tosa.encoder import encode
from tosa import Tokens, recover

BATCHES = (1, 2, 5)


class Encoder(torch.nn.Module):
    """The small encoder, as a graph is taken of it: tensors in, tensors out.

    Two layers are enough, and tracing them is what these rules spend their time on.
    """

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case.asking(keep_ratio=0.5) if case.method.merges else case
        self.plan = self.case.plan(1, num_layers=2)

    def forward(self, x: Tensor, spatial: Tensor) -> tuple[Tensor, ...]:
        tokens = encode(WEIGHTS, x, self.plan, HEADS, spatial, self.case.method)
        return tokens.x, tokens.size, tokens.source, recover(tokens)


def rule_an_encoder_compiles_once(case: Case) -> None:
    """One plan is one graph: nothing breaks it, and new images compile nothing anew."""
    torch.compiler.reset()
    counters.clear()
    encoder = Encoder(case)
    compiled = torch.compile(encoder.forward, backend="eager", fullgraph=True)
    with torch.inference_mode(), torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(3):
            inputs = images(2, 1, seed), scene(2, seed)
            pairs = zip(compiled(*inputs), encoder(*inputs), strict=True)
            assert all(torch.equal(ours, plain) for ours, plain in pairs)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def rule_an_encoder_exports(case: Case) -> None:
    """One program for batches of every size does on new images what the encoder does: nothing is baked in."""
    encoder, batch = Encoder(case), {0: torch.export.Dim("batch", min=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about how it traces
        inputs = images(3, 1), scene(3)
        program = torch.export.export(encoder, inputs, dynamic_shapes=(batch, batch)).module()
    for size in BATCHES:
        assert_same(program, encoder, size)


def rule_an_encoder_traces(case: Case) -> None:
    """The same of torch.jit.trace."""
    encoder = Encoder(case)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own, about numbers of the plan that become constants
        program: Any = torch.jit.trace(encoder, (images(3, 1), scene(3)), check_trace=False)
        for size in BATCHES:
            assert_same(program, encoder, size)


def assert_same(program: Callable[..., Any], encoder: Encoder, batch: int) -> None:
    inputs = images(batch, 1, seed=17), scene(batch, seed=18)
    for ours, plain in zip(program(*inputs), encoder(*inputs), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)


def rule_shapes_need_no_data(case: Case) -> None:
    """Run on tensors without values: reading one, or a shape that depends on one, raises."""
    tokens, metric, step = one_step(case, num_prefix=1)
    with FakeTensorMode() as mode:
        fake = {name[1:]: mode.from_tensor(value) for name, value in tensors(tokens).items()}
        merged = case.method.merge(replace(tokens, **fake), mode.from_tensor(metric), step)
    real = case.method.merge(tokens, metric, step)
    assert shapes(merged) == shapes(real)


def shapes(tokens: Tokens) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors(tokens).items()}


GRAPH_RULES = [
    rule_an_encoder_compiles_once,
    rule_an_encoder_exports,
    rule_an_encoder_traces,
    rule_shapes_need_no_data,
]
