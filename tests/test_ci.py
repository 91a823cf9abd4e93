"""What CI installs from Debian: only what is missing, no services, and a clear line where it cannot."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "debian"
APT_GET = """#!/bin/sh
echo "$*" >>"$LOG"
test -x "$POLICY" && sh "$POLICY"
echo "policy $?" >>"$LOG"
test "$1" != "$FAILING"
"""


class Machine:
    """A PATH with few programs, a user, and an apt-get that writes down what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.log, self.policy = folder / "bin", folder / "log", folder / "policy"
        self.bin.mkdir()
        for name in ("rm", "chmod", "sh", "bash"):
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.program("id", "echo 0")
        (self.bin / "apt-get").write_text(APT_GET)
        (self.bin / "apt-get").chmod(0o755)

    def program(self, name: str, command: str = "true") -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{command}\n")
        (self.bin / name).chmod(0o755)

    def install(self, *pairs: str, failing: str = "") -> str:
        """Run the script, which must succeed, and return what it says."""
        environment = {"PATH": str(self.bin), "POLICY": str(self.policy)}
        environment |= {"LOG": str(self.log), "FAILING": failing}
        done = subprocess.run(
            [SCRIPT, *pairs], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout + done.stderr

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_is_done_where_everything_is_there(machine: Machine) -> None:
    machine.program("proxy-a")
    assert machine.install("proxy-a:package-a") == "" and machine.asked == []


def test_what_is_missing_is_installed_and_no_service_starts(machine: Machine) -> None:
    machine.program("proxy-a")
    assert machine.install("proxy-a:package-a", "tool-b:package-b") == "CI: installed package-b\n"
    update, _, install, policy = machine.asked
    assert update.startswith("update") and install.startswith("install") and install.endswith(" package-b")
    assert policy == "policy 101" and not machine.policy.exists()


def test_the_machines_own_policy_stays(machine: Machine) -> None:
    machine.policy.write_text("exit 0\n")
    machine.policy.chmod(0o755)
    machine.install("tool-b:package-b")
    assert machine.policy.read_text() == "exit 0\n"


@pytest.mark.parametrize("failing", ["update", "install"])
def test_a_failure_of_debian_is_told_and_is_no_failure_of_ci(machine: Machine, failing: str) -> None:
    output = machine.install("tool-b:package-b", failing=failing)
    assert f"CI: not installed: package-b (apt-get {failing} failed)" in output
    assert not machine.policy.exists()


def test_without_root_or_apt_get_nothing_is_tried(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    assert "(not root)" in machine.install("tool-b:package-b") and machine.asked == []
    (machine.bin / "apt-get").unlink()
    assert "(there is no apt-get)" in machine.install("tool-b:package-b")
