"""The JSON of a measurement: what was measured, on which machine, environment and commit, and when."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evals.environment import describe_environment, package_version, processor

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
    accelerator, threads, torch_version = _torch()
    return {
        "processor": accelerator or processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch_version,
        "transformers": package_version("transformers") or "absent",
        "commit": _commit(),
    }


def _torch() -> tuple[str | None, int, str]:
    """Return accelerator, threads and version; a load generator may lack torch, and has one thread."""
    if importlib.util.find_spec("torch") is None:
        return None, 1, "absent"
    import torch  # slow to import

    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return accelerator, torch.get_num_threads(), torch.__version__


def _commit() -> str:
    """Return the commit, "unknown" where there is no repository or no git, as in an image."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except FileNotFoundError:
        return "unknown"
    return described.stdout.strip() or "unknown"
