"""The JSON of a measurement: what was measured, on which machine, environment and commit, and when."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from evals.environment import describe_environment, processor

FLAT_LIST = re.compile(r"\[\s[^][{}\"]*\]")  # lists of numbers go on one line


def write_result(path: Path, measured: dict[str, Any]) -> None:
    """Write a result with the machine and environment it came from, and the date.

    `environment` is the one of this process, unless the result names another: that of a server it started.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    stamp = {"machine": describe_machine(), "date": date}
    written = json.dumps({"environment": describe_environment(), **measured, **stamp}, indent=1)
    path.write_text(FLAT_LIST.sub(lambda found: " ".join(found[0].split()), written) + "\n")


def describe_machine() -> dict[str, str | int]:
    """Name processor or accelerator, core count, library versions and the commit that was measured."""
    return {
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": _commit(),
    }


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return described.stdout.strip() or "unknown"
