"""The small encoder compiled to machine code, once: what graphs are taken of is in graph_rules.py."""

import warnings

import pytest
import torch

from tests.needs import needs
from tests.tosa.cases import CASES, images, scene
from tests.tosa.graph_rules import Encoder


@pytest.mark.long
@needs("c++")
@torch.inference_mode()
def test_an_encoder_compiles_to_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config, "compile_threads", 1)  # no pool of processes for one graph
    torch.compiler.reset()
    encoder, inputs = Encoder(CASES["tome"]), (images(2, 1), scene(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(encoder.forward, backend="inductor", fullgraph=True)(*inputs)
    for ours, plain in zip(compiled, encoder(*inputs), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
