"""The import directions of the design, read from the source; each rule has a twin that breaks it."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
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
# What each room of service/ may import of the others; what stands in no room may not be there.
BASE = {"budgets", "errors", "keys", "settings", "timing"}
ROOMS = {
    "cli": BASE | {"ray_serve", "app", "server", "engine", "pipeline", "request"},
    "__main__": {"cli"},
    "ray_serve": BASE | {"app", "api", "telemetry"},
    "app": BASE | {"api"},
    "api": BASE | {"engine", "pipeline", "request", "server", "telemetry"},
    "server": BASE | {"telemetry"},
    "engine": BASE | {"pipeline", "request"},
    "pipeline": BASE | {"request"},
    "telemetry": BASE | {"pipeline"},
    "request": BASE,
    "budgets": {"errors", "settings"},
    "keys": {"errors", "settings"},
    "errors": set[str](),
    "settings": set[str](),
    "timing": set[str](),
    "__init__": set[str](),
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


def room_violations(root: Path) -> list[str]:
    """Return the imports that the table of rooms does not allow, and the files that stand in no room."""
    found = []
    for file in sorted((root / "service").rglob("*.py")):
        path = file.relative_to(root)
        room = path.parts[1].removesuffix(".py")
        if room not in ROOMS:
            found.append(f"{path} stands in no room")
            continue
        for imported in modules(ast.parse(file.read_text(encoding="utf-8"))):
            top, _, rest = imported.partition(".")
            other = rest.split(".")[0]
            if top == "service" and other != room and other not in ROOMS[room]:
                found.append(f"{path} imports {imported}")
    return found


def modules(tree: ast.Module) -> Iterator[str]:
    """Yield the whole name of every module of ours that is imported absolutely, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_one_way() -> None:
    assert violations(ROOT) == []


def test_the_rooms_of_the_service_import_only_what_stands_below() -> None:
    assert room_violations(ROOT) == []


def test_the_table_of_rooms_has_no_circle_and_no_room_that_is_gone() -> None:
    tuple(TopologicalSorter(ROOMS).static_order())  # raises CycleError
    there = {file.relative_to(ROOT / "service").parts[0] for file in (ROOT / "service").rglob("*.py")}
    assert {name.removesuffix(".py") for name in there} == set(ROOMS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("service/request/a.py", "from service.pipeline import prepare"),
        ("service/pipeline/a.py", "from service.engine.jobs import Job"),
        ("service/engine/a.py", "import service.api.routes"),
        ("service/telemetry/a.py", "def f():\n    from service.engine.jobs import Job"),
        ("service/errors.py", "from service import request"),
        ("service/server/a.py", "from service.api.sse import event"),
        ("service/ray_serve/a.py", "from service.cli.errors import fail"),
        ("service/keys.py", "from service.app import create_app"),
        ("service/translation.py", ""),
        ("service/shed/a.py", ""),
    ],
)
def test_the_checker_of_rooms_can_fail(tmp_path: Path, path: str, source: str) -> None:
    _write(tmp_path, path, source)
    assert len(room_violations(tmp_path)) == 1


def test_the_checker_of_rooms_lets_the_design_through(tmp_path: Path) -> None:
    _write(tmp_path, "service/api/a.py", "from service.engine.jobs import Job\nfrom service.api import b")
    _write(tmp_path, "service/errors.py", "from depth import DepthError")
    assert room_violations(tmp_path) == []


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
