"""The wheel: what it installs, what it asks for, and that each of its packages works with only that."""

from __future__ import annotations

import ast
import configparser
import os
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

import depth
import vlm
from service.needed import NEEDED
from tests.locks import ROOT
from tests.test_architecture import imports
from tests.wheel import environments
from tests.wheel.environments import Environment, chosen, closure, normal

PACKAGES = {"tosa", "vlm", "depth", "service", "tosa_vqa_client"}
# What a user may call his own files and folders: everything else that has a name in our repository.
NAMES_OF_USERS = ("checkpoints", "evals", "training", "bench", "examples", "tests", "roomqa", "scene")
EXTRAS = {
    "tosa": (),
    "depth/estimators": ("depth", "vlm"),
    "depth": ("depth", "exr"),
    "vlm": ("vlm", "plots", "devices"),
    "service": ("serve", "mcp", "otel", "ray", "bag"),
    "tosa_vqa_client": ("client", "depth"),  # numpy only where a caller has arrays
}
MERGE = """
import importlib.util, sys
from torch import randn
from tosa import METHODS, EncoderShape, MergeSpec, Tokens, make_plan, position_tokens
shape = EncoderShape(num_layers=4, grid=(8, 8), hidden_size=16, mlp_size=64)
for name in METHODS:
    plan = make_plan(MergeSpec(name, keep_ratio=0.5 if METHODS[name].merges else None), shape)
    tokens = Tokens.start(randn(1, 64, 16), shape.grid, 0, position_tokens(shape.grid))
    for step in filter(None, plan.steps):
        tokens = METHODS[name].merge(tokens, tokens.x, step)
    assert tokens.x.shape[1] == plan.tokens_out, name
print("merged", importlib.util.find_spec("numpy"), [name for name in ("vlm", "PIL") if name in sys.modules])
"""
READ_DEPTH = """
import depth
image = open("depth.png", "rb").read()
read, report = depth.read_depth(image)
print("read", read.values.shape)
import depth.estimators
"""
ASK = """
import sys
from tosa_vqa_client import Client, ConnectionFailed, Retries
try:
    Client("http://127.0.0.1:9", retries=Retries(1)).ask("how many ?", b"a file")
except ConnectionFailed as error:
    print(error)
print([name for name in ("torch", "numpy", "PIL", "tosa", "service") if name in sys.modules])
"""
ENCODE = """
from PIL import Image
from tosa import MergeSpec, make_plan
from vlm import encode, load_vlm, pixel_values
vlm = load_vlm("room-tiny")
plan = make_plan(MergeSpec("tome", keep_ratio=0.25), vlm.shape)
print("encoded", encode(vlm.tower, pixel_values(vlm, [Image.new("RGB", (9, 9))]), plan).x.shape[1])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.build_wheel(tmp_path_factory.mktemp("wheel"))


Make = Callable[..., Environment]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make an environment with the wheel and some of its extras; a second one like it is the same."""
    equip = environments.installed if "WHEEL_FROM_INDEX" in os.environ else environments.linked
    made: dict[tuple[str, ...], Environment] = {}

    def make(*extras: str) -> Environment:
        if extras not in made:
            folder = tmp_path_factory.mktemp("-".join(("environment", *extras)))
            made[extras] = equip(wheel, extras, folder)
        return made[extras]

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder with files of his own that have the names of ours; to import one is an error."""
    for name in NAMES_OF_USERS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py is a file of the user')\n")
    return tmp_path


def tops(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return {name.partition("/")[0] for name in archive.namelist()}


def test_only_our_five_packages_are_installed(wheel: Path) -> None:
    assert {top for top in tops(wheel) if not top.endswith(".dist-info")} == PACKAGES


def test_everything_in_them_is_installed(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()]
    ours = {file.relative_to(ROOT).as_posix() for file in files if "__pycache__" not in file.parts}
    assert shipped == ours
    assert {"vlm/checkpoints/room-tiny/SHA256SUMS", "depth/checkpoints/room-depth-tiny/SHA256SUMS"} < shipped


def test_without_extras_it_asks_for_torch_alone(wheel: Path) -> None:
    assert [each.name for each in chosen(environments.asked(wheel))] == ["torch"]
    extras = environments.header(wheel).get_all("Provides-Extra", [])
    assert {"depth", "vlm", "serve", "plots", "otel", "ray"} <= set(extras)


def test_it_installs_one_command(wheel: Path) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(environments.told(wheel, "entry_points.txt"))
    assert {section: dict(scripts[section]) for section in scripts.sections()} == {
        "console_scripts": {"tosa-vqa": "service.__main__:main"}
    }


def test_a_package_has_the_same_bounds_in_every_extra(wheel: Path) -> None:
    bounds: dict[str, set[str]] = {}
    for each in environments.asked(wheel):
        if each.name != environments.NAME:
            bounds.setdefault(each.name, set()).add(str(each.specifier))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}


def test_the_packages_are_typed(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        assert {f"{package}/py.typed" for package in PACKAGES} <= set(archive.namelist())


def undeclared(root: Path, allowed: dict[str, set[str]]) -> list[str]:
    """List imports that no extra of their package brings; `allowed` names what is brought to each part."""
    owners = metadata.packages_distributions()
    found = []
    for file in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
        path = file.relative_to(root)
        part = max((part for part in allowed if path.is_relative_to(part)), key=len)
        for name in sorted(set(imports(ast.parse(file.read_text(encoding="utf-8"))))):
            brought = {normal(owner) for owner in owners.get(name, ())} - {environments.NAME}
            if brought and not brought & allowed[part]:
                found.append(f"{path} imports {name}")
    return found


def test_an_extra_brings_all_that_its_package_imports(wheel: Path, tmp_path: Path) -> None:
    allowed = {part: closure(wheel, extras) for part, extras in EXTRAS.items()}
    assert undeclared(ROOT, allowed) == []
    (tmp_path / "depth" / "estimators").mkdir(parents=True)
    for path in ("depth/a.py", "depth/estimators/a.py"):
        (tmp_path / path).write_text("import numpy\ndef f():\n    import transformers, fastapi")
    assert undeclared(tmp_path, allowed) == [
        "depth/a.py imports fastapi",
        "depth/a.py imports transformers",
        "depth/estimators/a.py imports fastapi",
    ]


@pytest.mark.parametrize(
    ("extra", "needed"), [("depth", depth._NEEDED), ("vlm", vlm._NEEDED), ("serve", NEEDED)]
)
def test_what_must_be_there_is_what_the_extra_names(wheel: Path, extra: str, needed: tuple[str, ...]) -> None:
    """All but timm, which only models of timm need, tokenizers, a part of transformers, and uvloop."""
    owners = metadata.packages_distributions()
    ours = {normal(owner) for name in needed for owner in owners[name]}
    assert ours == set(named(wheel, extra)) - {"torch", "timm", "tokenizers", "uvloop"}


def named(wheel: Path, extra: str) -> Iterator[str]:
    """Name what an extra adds, and the extras inside it."""
    for each in environments.asked(wheel):
        if list(chosen([each], extra)) and not list(chosen([each])):
            if each.name == environments.NAME:
                for inner in each.extras:
                    yield from named(wheel, inner)
            else:
                yield each.name


def test_tosa_merges_with_torch_alone(environment: Make, folder: Path) -> None:
    done = environment().run("python", "-c", MERGE, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "merged None []\n"), done.stderr


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("vlm", "vlm needs huggingface_hub, llguidance, numpy, PIL, safetensors, torchvision, trans"),
        ("vlm.overlay", "vlm needs huggingface_hub, "),
        ("depth", "depth needs cachetools, isal, numpy, PIL, simplejpeg: "),
        ("depth.presets", "depth needs cachetools, "),
        ("service.app", "service needs cachetools, click, fastapi, h11, "),
        ("service.settings", "service needs cachetools, click, "),
        ("tosa_vqa_client", "tosa_vqa_client needs httpx"),
    ],
)
def test_a_package_without_its_extra_says_what_to_install(
    environment: Make, folder: Path, package: str, sentence: str
) -> None:
    done = environment().run("python", "-c", f"import {package}", cwd=folder)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith(f"ModuleNotFoundError: {sentence}"), done.stderr
    extra = package.partition(".")[0].replace("service", "serve").replace("tosa_vqa_client", "client")
    assert last.endswith(f": pip install 'tosa-vqa[{extra}]'")


def test_the_client_needs_httpx_and_nothing_else(environment: Make, folder: Path) -> None:
    done = environment("client").run("python", "-c", ASK, cwd=folder)
    assert done.returncode == 0, done.stderr
    said, heavy = done.stdout.splitlines()
    assert said.startswith("no connection to http://127.0.0.1:9: ") and heavy == "[]"


@pytest.mark.parametrize("extras", [(), ("depth", "vlm")])
@pytest.mark.parametrize("command", [("tosa-vqa", "--help"), ("python", "-m", "service", "serve")])
def test_the_command_without_its_extra_says_what_to_install(
    environment: Make, folder: Path, extras: tuple[str, ...], command: tuple[str, ...]
) -> None:
    done = environment(*extras).run(*command, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: tosa-vqa needs ") and "fastapi, " in sentence
    assert sentence.endswith(": pip install 'tosa-vqa[serve]'") and ("numpy" in sentence) == (not extras)


@pytest.mark.long
def test_depth_reads_files_with_its_extra_and_estimates_with_that_of_vlm(
    environment: Make, folder: Path
) -> None:
    (folder / "depth.png").write_bytes((ROOT / "examples/frames/room-1/depth.png").read_bytes())
    alone = environment("depth").run("python", "-c", READ_DEPTH, cwd=folder)
    assert alone.stdout == "read (384, 384)\n", alone.stderr
    assert alone.stderr.endswith("torchvision, transformers: pip install 'tosa-vqa[vlm]'\n")
    both = environment("depth", "vlm").run("python", "-c", READ_DEPTH, cwd=folder)
    assert both.returncode == 0, both.stderr


@pytest.mark.long
def test_vlm_encodes_with_its_extra(environment: Make, folder: Path) -> None:
    done = environment("vlm").run("python", "-c", ENCODE, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "encoded 144\n"), done.stderr


@pytest.mark.long
def test_the_service_answers_beside_files_with_the_names_of_ours(environment: Make, folder: Path) -> None:
    run = environment("serve").run
    (folder / "mine.py").write_text("import vlm, depth.estimators, service.app\nprint('imported')\n")
    mine = run("python", "mine.py", cwd=folder)
    assert (mine.returncode, mine.stdout) == (0, "imported\n"), mine.stderr
    scene = run("tosa-vqa", "scene", "--seed", "7", "--out", "room", cwd=folder)
    assert scene.returncode == 0, scene.stderr
    question = ("--question", "How many cubes are there?", "--method", "tosa", "--keep-ratio", "0.25")
    words = ("ask", "--image", "room/rgb.png", *question)  # estimates depth
    answer = run("python", "-m", "service", *words, cwd=folder)
    assert answer.returncode == 0 and "144" in answer.stdout, answer.stderr


def test_the_files_of_the_user_would_be_noticed(environment: Make, folder: Path) -> None:
    done = environment().run("python", "-c", "import checkpoints", cwd=folder)
    assert done.returncode != 0 and "checkpoints.py is a file of the user" in done.stderr
