"""Every method as ONNX: onnxruntime computes the same for every batch; the old exporter is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.needs import needs
from tests.tosa.cases import CASES, PATCHES, Case, images, one_step, scene
from tosa import METHODS, Tokens, UnsupportedExporter, raster_order, recover
from tosa.sorting import argsort

pytestmark = needs("onnx")
BATCHES = (1, 2, 5)
Run = Callable[..., list[Tensor]]


class Merge(torch.nn.Module):
    """One merge of tokens that begin on their grid, and both ways on: in raster order, and to the grid."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        tokens, _, step = one_step(case, num_prefix=1)
        self.grid, self.step = tokens.entry_grid, replace(step, layer=1)

    def forward(self, x: Tensor, spatial: Tensor) -> tuple[Tensor, ...]:
        assert self.grid is not None
        tokens = Tokens.start(x, self.grid, 1, spatial)
        merged = raster_order(self.case.method.merge(tokens, self.case.metric(tokens), self.step))
        return merged.x, merged.size, merged.source, recover(merged)


def onnx_of(module: torch.nn.Module, *inputs: Tensor) -> Run:
    """Export with a dynamic batch, as a user does, and load into onnxruntime."""
    import onnxruntime

    batch = {0: torch.export.Dim("batch", min=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about how it traces
        program = torch.onnx.export(
            module, inputs, dynamic_shapes=tuple(batch for _ in inputs), dynamo=True, verbose=False
        )
    assert program is not None
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return [torch.from_numpy(value) for value in session.run(None, given)]

    return run


# Five rounds of clustering amplify rounding: eager itself is 1e-4 away from float64.
TOLERANCE = {"expedite": 5e-4}
NAMES = [name for name in CASES if name != "tofu that only drops"]  # as `tofu` at this layer
FIRST = {"tome"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FIRST else pytest.mark.long) for name in NAMES]
)
def test_a_merge_in_onnxruntime_is_the_same(name: str) -> None:
    merge = Merge(CASES[name])
    run = onnx_of(merge, images(3, 1), scene(3))
    for batch in BATCHES:
        inputs = images(batch, 1, seed=batch), scene(batch, seed=batch + 9)
        for ours, plain in zip(run(*inputs), merge(*inputs), strict=True):
            tolerance = TOLERANCE.get(name, 1e-5)
            torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


class Order(torch.nn.Module):
    def __init__(self, descending: bool) -> None:
        super().__init__()
        self.descending = descending

    def forward(self, values: Tensor) -> Tensor:
        return argsort(values, self.descending)


@pytest.mark.parametrize("descending", [True, pytest.param(False, marks=pytest.mark.long)])
def test_equal_values_stay_in_order(descending: bool) -> None:
    """Ties everywhere, infinities and both zeros among them: in exported programs and in ONNX."""
    order = Order(descending)
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([-torch.inf, -1.5, -0.0, 0.0, 2.0, torch.inf])[
        torch.randint(6, (5, 300), generator=generator)
    ]
    expected = values.argsort(dim=-1, descending=descending, stable=True)
    assert torch.equal(order(values), expected)
    exported = torch.export.export(order, (values,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    run = onnx_of(order, values)
    for batch in BATCHES:
        assert torch.equal(exported.module()(values[:batch]), expected[:batch])
        assert torch.equal(run(values[:batch])[0], expected[:batch])


@pytest.mark.parametrize("name", METHODS)
def test_the_exporter_by_torchscript_is_refused(name: str, tmp_path: Path) -> None:
    """It loses writes into tensors: `pool` came out with wrong numbers and no word about it."""
    merge, inputs, file = Merge(CASES[name]), (images(2, 1), scene(2)), tmp_path / "merge.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        if not METHODS[name].merges:
            torch.onnx.export(merge, inputs, file, dynamo=False, opset_version=18)
            return
        with pytest.raises(UnsupportedExporter, match="use dynamo=True") as error:
            torch.onnx.export(merge, inputs, file, dynamo=False, opset_version=18)
    assert error.value.code == "unsupported_exporter"
    assert not file.exists()


def test_the_example_has_something_to_merge() -> None:
    merged = {name: Merge(case)(images(2, 1), scene(2))[0].shape[1] for name, case in CASES.items()}
    assert {name for name, n in merged.items() if n == 1 + PATCHES} == {"none"}


def test_the_page_names_the_exporters_that_are_tested() -> None:
    """The last one is refused; the others are the rules of graph_rules.py and the tests above."""
    page = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
    table = page.split("## Exporting")[1].split("For ONNX")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `torch")]
    assert [name.split("`")[1].split("(")[0] for name, _ in rows] == [
        "torch.export.export",
        "torch.onnx.export",
        "torch.jit.trace",
        "torch.compile",
        "torch.onnx.export",
    ]
    assert ["every method" in words for _, words in rows] == [True, True, True, True, False]
    assert "dynamo=False" in rows[-1][0] and UnsupportedExporter.__name__ in rows[-1][1]
