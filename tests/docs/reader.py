"""Where a reader of the documentation stands: a fresh copy of the repository, and a server that listens."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

from tests.docs.pages import ROOT, Block
from tests.loopback import PATIENCE_S, START_S, free_port, wait_for

PROMISED = ("127.0.0.1:8000", "127.0.0.1:8080")
"""Addresses of the pages: of the service, and of the proxy in front of it."""
PREAMBLE = """set -eEuo pipefail
trap 'echo "failed in $block" >&2' ERR
curl() { command curl --fail-with-body --noproxy '*' "$@"; }
make() { command make --old-file=.venv/.installed "$@"; }
"""


@dataclass(frozen=True)
class Reader:
    """A copy of the repository with an installed environment, and the address of a running service."""

    folder: Path
    address: str

    def run(self, blocks: Sequence[Block]) -> subprocess.CompletedProcess[str]:
        """Run the blocks of one page in one shell, one after the other, until one fails."""
        script = PREAMBLE + "\n".join(map(_as_shell, _joined(blocks)))
        for promised in PROMISED:
            script = script.replace(promised, self.address)
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=environment(self.folder),
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )


def _joined(blocks: Sequence[Block]) -> list[Block]:
    """Join Python blocks that follow each other: one process imports torch once."""
    joined: list[Block] = []
    for block in blocks:
        if joined and joined[-1].language == block.language == "python":
            both = f"{joined[-1].as_tested}\n{block.as_tested}"
            block = replace(joined.pop(), text=both, comment="")
        joined.append(block)
    return joined


def _as_shell(block: Block) -> str:
    text = block.as_tested
    if block.language == "python":
        text = f".venv/bin/python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK\n"
    return f"block={shlex.quote(f'{block.page}:{block.line}')}\n{text}"


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a new terminal: nothing of this process's own environment is on the path."""
    mine = str(Path(sys.prefix) / "bin")
    path = [part for part in os.environ["PATH"].split(os.pathsep) if part != mine]
    kept = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE") if name in os.environ}
    return {**kept, "PATH": os.pathsep.join(path), "HOME": str(folder), "NO_PROXY": "*", "TERM": "dumb"}


def copy_repository(folder: Path) -> None:
    """Copy what a clone would have, changes that are not committed included, and lend the environment."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.splitlines()):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix, target_is_directory=True)


@contextmanager
def served(folder: Path, block: Block) -> Iterator[str]:
    """Start the server as a page says, on a free port; yield its address when it is ready."""
    port = free_port()
    settings = {"PORT": str(port), "TOSA_VQA_DRAIN_PAUSE_S": "0"}
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(
            ["bash", "-c", PREAMBLE + _as_shell(block)],
            cwd=folder,
            env={**environment(folder), **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(lambda: is_ready(port) or process.poll() is not None, START_S)
            assert process.poll() is None, (folder / "server.log").read_text()
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(PATIENCE_S)


def is_ready(port: int) -> bool:
    """Say whether the service on a port would answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S) as response:
            return response.status == 200
    except OSError:
        return False
