"""How the suite reports: deprecations are errors with the lock's versions only, and no skip is silent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import START_S
from tests.needs import NEEDS, Need, needs, told

ROOT = Path(__file__).parent.parent
MAY_SKIP = {"needs.py", "conftest.py", Path(__file__).name}
OURS = """
from tests import locks
locks.mismatches = lambda lock: {mismatches}
from tests.conftest import *
"""
SAMPLE = """
import warnings
from tests.needs import skip_without

def test_a_deprecation(): warnings.warn("gone soon", FutureWarning)
def test_a_warning(): warnings.warn("ours", UserWarning)
def test_without_a_gpu(): skip_without("gpu", is_met=False)
def test_without_an_engine(): skip_without("an engine")
def test_without_an_engine_too(): skip_without("an engine")
"""


def run(folder: Path, mismatches: list[str], *options: str) -> str:
    """Run the sample under the settings of this suite, as if these packages differed from the lock."""
    inner = folder / "inner"
    inner.mkdir()
    (folder / "conftest.py").write_text(OURS.format(mismatches=mismatches))
    (inner / "test_sample.py").write_text(SAMPLE)
    if mismatches:
        (inner / "conftest.py").write_text('import warnings\nwarnings.warn("importing it", FutureWarning)\n')
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *options, str(inner)],
        cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_with_the_lock_deprecations_are_errors(tmp_path: Path) -> None:
    output = run(tmp_path, [])
    assert "deprecations: errors" in output
    assert re.findall(r"^FAILED \S+::(\w+)", output, re.M) == ["test_a_deprecation", "test_a_warning"], output


def test_with_other_versions_they_are_shown_and_skips_are_listed(tmp_path: Path) -> None:
    output = run(tmp_path, ["torch 9.0 (lock: 2.0)"], "--numprocesses", "1")
    assert (
        "deprecations: shown, these packages are not those of locks/dev.txt: torch 9.0 (lock: 2.0)" in output
    )
    assert re.findall(r"^FAILED \S+::(\w+)", output, re.M) == ["test_a_warning"], output
    assert "FutureWarning: gone soon" in output and "FutureWarning: importing it" in output
    listed = output[output.index("3 skipped: ") :].splitlines()
    assert [line.strip() for line in listed[1:3]] == [
        "2  needs docker or podman: make test-containers as root on Debian",
        "1  needs a CUDA device: run on a machine with one",
    ]
    assert re.match(r"=+ 1 failed, 1 passed, 3 skipped, ", output.splitlines()[-1])


def test_the_first_thing_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEEDS, "here", Need("this", "do nothing", lambda: True))
    monkeypatch.setitem(NEEDS, "absent", Need("that", "install it", lambda: False))
    assert needs("here").mark.args == (False,)
    assert (needs("here", "absent").mark.args, needs("here", "absent").mark.kwargs["reason"]) == (
        (True,),
        "needs that: install it",
    )
    assert told(["a", "b", "b"]) == ["    2  b", "    1  a"]


def skips(source: str) -> list[str]:
    return re.findall(r"pytest\.skip\(|importorskip|mark\.skip|@unittest\.skip", source)


def test_every_skip_says_what_it_needs() -> None:
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.name not in MAY_SKIP]
    assert {
        str(file): skips(file.read_text(encoding="utf-8")) for file in files if skips(file.read_text())
    } == {}
    assert skips('pytest.skip("x")') and skips("pytest.importorskip('x')") and skips("@pytest.mark.skipif(x)")


def test_our_own_code_announces_no_deprecations() -> None:
    """They would pass for those of others."""
    kinds = r"warn(_explicit)?\([^)]*\b(Pending)?(Deprecation|Future)Warning"
    for package in ("tosa", "vlm", "depth", "service", "evals"):
        for file in (ROOT / package).rglob("*.py"):
            assert not re.search(kinds, file.read_text(encoding="utf-8")), file
    assert re.search(kinds, 'warnings.warn("x is y now", FutureWarning, stacklevel=2)')
