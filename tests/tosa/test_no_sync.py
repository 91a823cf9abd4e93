"""No method waits for the device: nothing in `tosa/` reads a value or takes a shape from one."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import tosa
from tests.tosa.cases import CASES, HEADS, WEIGHTS, images, scene
from tests.tosa.encoder import encode
from tosa import recover, unmerge

# What merges across frames stands behind the encoder: how many tokens it keeps depends on where they are.
SOURCES = sorted(path for path in Path(tosa.__file__).parent.rglob("*.py") if path.parent.name != "frames")
# Methods and functions of tensors that hand a value to Python, or whose shape depends on values.
READS = {"item", "tolist", "cpu", "numpy", "nonzero", "argwhere", "masked_select", "unique", "bincount"}

GENERICS = {"tuple", "list", "dict", "Callable", "Mapping"}  # their brackets hold types, not indices


def waits(code: str) -> list[str]:
    """Find calls of READS, boolean indexing and torch.where with one argument."""
    return [ast.unparse(node) for node in ast.walk(ast.parse(code)) if _reads(node) or _masks(node)]


def _reads(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return node.func.attr in READS or (node.func.attr == "where" and len(node.args) == 1)


def _masks(node: ast.AST) -> bool:
    if not isinstance(node, ast.Subscript) or ast.unparse(node.value) in GENERICS:
        return False
    return any(_is_mask(index) for index in _indices(node.slice))


def _indices(index: ast.expr) -> Iterator[ast.expr]:
    yield from index.elts if isinstance(index, ast.Tuple) else [index]


def _is_mask(index: ast.expr) -> bool:
    """A comparison, its negation or a combination of them; or a name that says it is one."""
    if isinstance(index, ast.UnaryOp):
        return isinstance(index.op, ast.Invert)
    if isinstance(index, ast.BinOp):
        return isinstance(index.op, ast.BitAnd | ast.BitOr)
    return isinstance(index, ast.Compare) or (isinstance(index, ast.Name) and "mask" in index.id)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_waits(path: Path) -> None:
    assert waits(path.read_text(encoding="utf-8")) == []


def test_the_library_is_found() -> None:
    assert {"reduction", "tome", "tokens"} <= {path.stem for path in SOURCES}


@pytest.mark.parametrize(
    "line",
    [
        "r = int(x.sum().item())",
        "for n in x.tolist(): pass",
        "y = x.cpu()",
        "index = (x > 0).nonzero()",
        "index = torch.where(x > 0)",
        "y = torch.masked_select(x, x > 0)",
        "y = x[x > 0]",
        "y = x[:, ~taken]",
        "y = x[mask]",
        "y = x[0, (x > 0) & (x < 1)]",
    ],
)
def test_what_waits_is_found(line: str) -> None:
    assert waits(line)


def test_what_does_not_wait_is_let_through() -> None:
    assert not waits("y = torch.where(x > 0, x, 0)[:, 1:, 0::2]; m = METHODS[name].items(); z = x[..., None]")
    assert not waits("def f(x: tuple[int | None, ...]) -> Mapping[str, int | float]: ...")


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_no_method_waits_on_a_gpu(name: str) -> None:
    case, plan = CASES[name], CASES[name].plan(1)
    weights = {key: value.cuda() for key, value in WEIGHTS.items()}
    x, spatial = images(2, 1).cuda(), scene(2).cuda()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this mode is a prototype
        torch.cuda.set_sync_debug_mode("error")
        try:
            tokens = encode(weights, x, plan, HEADS, spatial, case.method, track_position=True)
            dense = recover(tokens) + unmerge(tokens)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    expected = encode(WEIGHTS, x.cpu(), plan, HEADS, spatial.cpu(), case.method)
    assert dense.isfinite().all()
    torch.testing.assert_close(tokens.x.cpu(), expected.x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(tokens.size.cpu(), expected.size)
    assert torch.equal(tokens.source.cpu(), expected.source)


@pytest.mark.gpu
def test_waiting_on_a_gpu_would_be_found() -> None:
    value = torch.ones((), device="cuda")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
        try:
            with pytest.raises(RuntimeError, match="synchronizing"):
                value.item()
        finally:
            torch.cuda.set_sync_debug_mode("default")
