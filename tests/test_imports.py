"""What an import costs: transformers, torchvision and timm take seconds, and only those who use them pay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import START_S

ROOT = Path(__file__).parent.parent
LATE = ("transformers", "tokenizers", "torchvision", "timm", "huggingface_hub")
HELP = """
import sys
from contextlib import suppress
from service.__main__ import main
sys.argv[1:] = {words}
with suppress(SystemExit):
    main()
"""


def imported(program: str, *names: str) -> list[str]:
    """Run a program, and return which of these modules it imported."""
    report = f"\nimport sys\nprint('imported', *[name for name in {names} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program + report],
        cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_our_packages_leaves_transformers_for_later() -> None:
    packages = "vlm, vlm.load, vlm.overlay, depth.estimators, service.app"
    assert imported(f"import {packages}", *LATE, "torch") == ["torch"]


@pytest.mark.long
def test_what_is_left_for_later_comes_when_it_is_needed() -> None:
    program = "from vlm import load_shape, load_vlm\nload_shape('room-tiny')"
    assert "transformers" in imported(program, *LATE)


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["serve", "--help"], ["scene", "--help"], ["check", "--help"]]
)
def test_the_command_line_helps_without_torch(words: list[str]) -> None:
    assert imported(HELP.format(words=words), "torch", "numpy", *LATE) == []
