"""The import directions of the design, read from the source; each rule has a twin that breaks it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED_NAMES = {"utils.py", "helpers.py"}
WEB = {"fastapi", "starlette", "uvicorn"}
TOOLS = {"evals", "training", "bench", "examples", "tests"}
# What each package may import of ours. Tools may import everything.
ALLOWED = {
    "tosa": set[str](),
    "checkpoints": set[str](),
    "depth": {"checkpoints"},
    "vlm": {"tosa", "checkpoints"},
    "service": {"vlm", "tosa", "depth"},
}
COMMAND_LINE = Path("service/cli/main.py")  # may import checkpoints, inside a function


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield the top-level package of every absolute import, and whether it stands inside a function."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    deferred = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        for name in names:
            yield name.split(".")[0], id(node) in deferred


def refused(path: Path, package: str, imported: str, deferred: bool) -> bool:
    if imported == package or imported in ALLOWED[package]:
        return False
    if path == COMMAND_LINE and imported == "checkpoints":
        return not deferred
    if imported in TOOLS:
        return True
    if package == "tosa":
        return imported != "torch" and imported not in sys.stdlib_module_names
    return imported in ALLOWED or (imported in WEB and package != "service")


def violations(root: Path) -> list[str]:
    found = []
    for package in ALLOWED:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root)
            if file.name in BANNED_NAMES:
                found.append(f"{path} is a banned name")
            for imported, deferred in imports(ast.parse(file.read_text(encoding="utf-8"))):
                if refused(path, package, imported, deferred):
                    found.append(f"{path} imports {imported}")
    return found


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tosa/a.py", "import numpy"),
        ("tosa/a.py", "from transformers import AutoModel"),
        ("tosa/methods/a.py", "import vlm.load"),
        ("tosa/a.py", "def f():\n    import PIL"),
        ("vlm/a.py", "from depth.codes import depth_codes"),
        ("vlm/a.py", "import service"),
        ("vlm/a.py", "import fastapi"),
        ("depth/a.py", "from tosa import Tokens"),
        ("depth/a.py", "import vlm"),
        ("checkpoints/a.py", "import vlm"),
        ("tosa/a.py", "import checkpoints"),
        ("service/a.py", "import checkpoints"),
        ("service/a.py", "def f():\n    import evals"),
        ("service/cli/main.py", "import evals.rooms"),
        ("service/cli/main.py", "def f():\n    from evals.rooms import scene"),
        ("service/cli/main.py", "import checkpoints"),
        ("service/cli/main.py", "def f():\n    import training"),
        ("vlm/a.py", "from tests.vlm import tiny"),
        ("service/utils.py", ""),
        ("vlm/deep/helpers.py", ""),
    ],
)
def test_the_checker_can_fail(tmp_path: Path, path: str, source: str) -> None:
    _write(tmp_path, path, source)
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tosa/a.py", "import math, torch.nn\nfrom tosa.spec import MergeSpec\nfrom . import plan"),
        ("vlm/a.py", "import transformers, tosa"),
        ("depth/a.py", "import numpy"),
        ("service/a.py", "import fastapi, vlm, tosa, depth"),
        ("service/cli/main.py", "def f():\n    import checkpoints"),
    ],
)
def test_the_checker_lets_the_design_through(tmp_path: Path, path: str, source: str) -> None:
    _write(tmp_path, path, source)
    assert violations(tmp_path) == []


def _write(root: Path, path: str, source: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
