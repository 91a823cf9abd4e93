"""Real encoders as graphs: exported whole, and compiled without compiling anew for new images."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from tests.needs import needs
from tests.tosa.test_onnx import onnx_of
from tests.vlm.adapters import adapter_for, pixels_for, tiny
from tosa import METHODS, MergeSpec, make_plan
from vlm import encode, tosa_encode

PAIRS = [(name, method) for name in ("deit", "dinov3", "siglip") for method in ("tome", "cubist")]
PAIRS.append(("sam, cut windows", "cubist"))


class Encoder(torch.nn.Module):
    """The model is a part of it, so that its weights are parameters of what is exported."""

    def __init__(self, name: str, method: str) -> None:
        super().__init__()
        self.model: Any = tiny(name)
        self.adapter = adapter_for(name)
        self.plan = make_plan(MergeSpec(method, keep_ratio=0.5), self.adapter.shape)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tokens = encode(self.adapter, pixels, self.plan)
        return tokens.x, tokens.size, tokens.source


@pytest.mark.parametrize(
    ("name", "method"), [*(pytest.param(*pair, marks=pytest.mark.long) for pair in PAIRS[:-1]), PAIRS[-1]]
)
@torch.no_grad()
def test_an_encoder_exports(name: str, method: str) -> None:
    encoder, pixels = Encoder(name, method).eval(), pixels_for(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about how it traces
        batch = {0: torch.export.Dim("batch", min=1)}
        program = torch.export.export(encoder, (pixels,), dynamic_shapes=(batch,)).module()
    for size in (1, 2, 5):
        pixels = pixels_for(name, size).flip(0)
        for exported, plain in zip(program(pixels), encoder(pixels), strict=True):
            torch.testing.assert_close(exported, plain, rtol=1e-5, atol=1e-5)


class TwoLines(torch.nn.Module):
    """What README shows, as a module that is exported whole: model, spec and pixels."""

    def __init__(self, name: str, method: str) -> None:
        super().__init__()
        self.model: Any = tiny(name)
        self.spec = MergeSpec(method, keep_ratio=0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return tosa_encode(self.model, pixels, self.spec).x


@needs("onnx", "long")
@pytest.mark.parametrize(("name", "method"), [("siglip", "tofu"), ("deit", "tome"), ("dinov3", "cubist")])
@torch.no_grad()
def test_an_encoder_in_onnxruntime_is_the_same(name: str, method: str) -> None:
    encoder = TwoLines(name, method).eval()
    run = onnx_of(encoder, pixels_for(name, 3))
    for size in (1, 2, 5):
        pixels = pixels_for(name, size)
        torch.testing.assert_close(run(pixels)[0], encoder(pixels), rtol=1e-4, atol=1e-4)


# Without spatial tokens.
ONE_GRAPH = [("deit", method) for method in METHODS if method not in ("none", "tosa")]
ONE_GRAPH += [("dinov3", "cubist"), ("siglip", "tome"), ("sam, cut windows", "cubist")]


@pytest.mark.long
@pytest.mark.parametrize(("name", "method"), ONE_GRAPH)
@torch.no_grad()
def test_two_lines_compile_as_one_graph(name: str, method: str) -> None:
    torch.compiler.reset()
    counters.clear()
    encoder, pixels = TwoLines(name, method).eval(), pixels_for(name)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(pixels), encoder(pixels), rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.parametrize(
    ("name", "method"), [("deit", "tome"), pytest.param("dinov3", "cubist", marks=pytest.mark.long)]
)
@torch.inference_mode()
def test_new_images_compile_nothing_anew(name: str, method: str) -> None:
    torch.compiler.reset()
    counters.clear()
    encoder, pixels = Encoder(name, method).eval(), pixels_for(name)
    compiled = torch.compile(encoder.forward, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shift in range(3):
            moved = pixels.roll(shift, dims=-1)
            for ours, plain in zip(compiled(moved), encoder(moved), strict=True):
                torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
