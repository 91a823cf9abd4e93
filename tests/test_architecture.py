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
    "depth": set[str](),  # and SHARED
    "vlm": {"tosa"},
    "service": {"vlm", "tosa", "depth", "tosa_vqa_client"},
    "tosa_vqa_client": set[str](),  # and no torch: what it needs is httpx
}
# What each room of service/ may import of the others; what stands in no room may not be there.
BASE = {"budgets", "errors", "keys", "needed", "settings", "timing"}
ROOMS = {
    "cli": BASE
    | {
        "mcp",
        "roomqa",
        "ray_serve",
        "app",
        "server",
        "engine",
        "episodes",
        "pipeline",
        "request",
        "recordings",
    },
    "__main__": {"cli", "needed"},
    "ray_serve": BASE | {"app", "api", "telemetry"},
    "mcp": BASE | {"app", "telemetry"},
    "app": BASE | {"api"},
    "api": BASE | {"engine", "episodes", "pipeline", "request", "roomqa", "server", "telemetry"},
    "episodes": BASE | {"pipeline", "request"},
    "server": BASE | {"telemetry"},
    "engine": BASE | {"language", "pipeline", "request"},
    "language": BASE,
    "pipeline": BASE | {"request"},
    "telemetry": BASE | {"pipeline"},
    "request": BASE,
    "roomqa": set[str](),
    "recordings": set[str](),
    "budgets": {"errors", "settings"},
    "keys": {"errors", "settings"},
    "errors": set[str](),
    "settings": {"needed"},
    "needed": set[str](),
    "timing": set[str](),
    "__init__": set[str](),
}
SHARED = "vlm.checkpoint_files"  # all that depth may import of vlm; it stands below the rest of vlm


def modules(tree: ast.Module) -> Iterator[str]:
    """Yield the whole name of everything that is imported absolutely, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level package of every absolute import."""
    yield from (module.partition(".")[0] for module in modules(tree))


def refused(path: Path, module: str) -> bool:
    """Say whether a file may not import a module."""
    package, imported = path.parts[0], module.partition(".")[0]
    is_shared = f"{module}.".startswith(f"{SHARED}.")
    if path.is_relative_to(SHARED.replace(".", "/")):
        return imported in ALLOWED.keys() | TOOLS | WEB and not is_shared
    if package == "depth" and imported == "vlm":
        return not is_shared
    if imported == package or imported in ALLOWED[package]:
        return False
    if package == "tosa_vqa_client" and imported == "torch":
        return True
    if package == "tosa":
        return imported != "torch" and imported not in sys.stdlib_module_names
    return imported in ALLOWED.keys() | TOOLS or (imported in WEB and package != "service")


def violations(root: Path) -> list[str]:
    found = []
    for package in ALLOWED:
        for file in sorted((root / package).rglob("*.py")):
            path = file.relative_to(root)
            if file.name in BANNED_NAMES:
                found.append(f"{path} is a banned name")
            tree = ast.parse(file.read_text(encoding="utf-8"))
            refusals = {module.partition(".")[0] for module in modules(tree) if refused(path, module)}
            found += [f"{path} imports {other}" for other in sorted(refusals)]
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
        ("depth/a.py", "from vlm import VlmError"),
        ("depth/a.py", "def f():\n    from vlm.load import load_vlm"),
        ("depth/a.py", "import vlm.checkpoint_files_of_others"),
        ("vlm/checkpoint_files/a.py", "from vlm.model import VlmError"),
        ("vlm/checkpoint_files/a.py", "import tosa"),
        ("tosa/a.py", "import vlm.checkpoint_files"),
        ("tosa_vqa_client/a.py", "def f():\n    from service.request.schemas import VqaFields"),
        ("tosa_vqa_client/a.py", "import torch"),
        ("vlm/a.py", "from tosa_vqa_client import Client"),
        ("service/a.py", "def f():\n    import evals"),
        ("service/cli/main.py", "import evals.rooms"),
        ("service/cli/main.py", "def f():\n    from evals.rooms import scene"),
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
        ("tosa_vqa_client/a.py", "import httpx, numpy"),
        ("depth/a.py", "from vlm.checkpoint_files import CheckpointReader\nfrom vlm import checkpoint_files"),
        ("vlm/checkpoint_files/a.py", "import torch\nfrom vlm.checkpoint_files.manifest import verify"),
        ("service/cli/main.py", "def f():\n    from vlm.checkpoint_files import write_manifest"),
    ],
)
def test_the_checker_lets_the_design_through(tmp_path: Path, path: str, source: str) -> None:
    _write(tmp_path, path, source)
    assert violations(tmp_path) == []


def _write(root: Path, path: str, source: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
