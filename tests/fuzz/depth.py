"""Fuzz the depth gate at full size: `python -m tests.fuzz.depth --files 50000 --cases 10000 --seed 0`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.depth.files import decode_depth
from tests.fuzz.campaign import run
from tests.fuzz.exact import Case, cases, check


def main() -> int:
    """Run both parts, print what happened, return 1 if anything was wrong."""
    options = _options()
    started = time.perf_counter()
    with _stderr_counted() as noise:
        summary = run(decode_depth, options.files, options.seed)
    print("\n".join(summary.lines()))
    print(f"lines that libraries wrote to stderr: {noise[0]}")
    if options.keep:
        _keep(Path(options.keep), summary.failures)
    exact = _exact(options.cases, options.seed)
    print(f"took {time.perf_counter() - started:.0f} s")
    too_loud = noise[0] > options.files
    return int(bool(summary.failures) or not exact or too_loud)


def _exact(number: int, seed_number: int) -> bool:
    ran = 0

    @seed(seed_number)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(cases())
    def encode_decode_compare(case: Case) -> None:
        nonlocal ran
        ran += 1
        check(case)

    try:
        encode_decode_compare()
    except AssertionError as error:
        print(f"encode, decode, compare: failed after {ran} cases: {error}")
        print("\n".join(getattr(error, "__notes__", ())))
        return False
    print(f"encode, decode, compare: {ran} cases, all exact")
    return True


@contextmanager
def _stderr_counted() -> Iterator[list[int]]:
    """Send file descriptor 2, where libtiff writes, to a file for a while; then fill in the lines."""
    counted, kept = [0], os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield counted
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            counted[0] = file.read().count(b"\n")


def _keep(folder: Path, failures: list[tuple[str, bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, (_, data) in enumerate(failures):
        (folder / f"{index:04d}.bin").write_bytes(data)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000, help="damaged files to decode")
    parser.add_argument("--cases", type=int, default=10_000, help="cases of encode, decode, compare")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="folder for the files that failed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
