"""Look for known vulnerabilities of what the images hold, with pip-audit: python -m bench.supply_chain.audit

Exit code 0: none is known. 1: some are. 2: the data could not be reached, so nothing was looked for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.supply_chain.pins import everything
from tests.locks import Pin

SERVICES = ("pypi", "osv")
Ask = Callable[[str, list[Pin]], list[dict[str, Any]] | None]


def ask(service: str, pins: Iterable[Pin]) -> list[dict[str, Any]] | None:
    """Ask a service with pip-audit about packages; None where it does not answer."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
        command += ["--requirement", str(file), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(told.stdout)["dependencies"]
    except ValueError:
        return None


def audit(pins: list[Pin], ask: Ask) -> tuple[int, list[str]]:
    """Return the exit code, and the lines to print.

    A service that knows nothing of one package has no data here, and is not asked about the others: pip-audit
    alone would say that it found nothing.
    """
    for service in SERVICES:
        first = ask(service, pins[:1])
        if first is None or "skip_reason" in first[0]:
            continue
        found = ask(service, pins)
        if found is not None:
            return _report(service, found)
    return 2, [f"NOT AUDITED: neither {' nor '.join(SERVICES)} can be asked from here. {len(pins)} packages."]


def _report(service: str, found: list[dict[str, Any]]) -> tuple[int, list[str]]:
    lines = [
        f"{each['name']} {each['version']}: {one['id']}, fixed in {', '.join(one['fix_versions']) or 'none'}"
        for each in found
        for one in each.get("vulns", ())
    ]
    skipped = [
        f"not audited: {each['name']}: {each['skip_reason']}" for each in found if "skip_reason" in each
    ]
    summary = (
        f"{len(found) - len(skipped)} packages audited with {service}: {len(lines)} known vulnerabilities"
    )
    return (1 if lines else 2 if skipped else 0), [*lines, *skipped, summary]


def main() -> None:
    """Audit the packages of all images."""
    code, lines = audit(list(everything().values()), ask)
    print("\n".join(lines))
    sys.exit(code)


if __name__ == "__main__":
    main()
