"""Tests never reach the network, never see the caller's settings, and skip what this machine cannot run."""

import gc
import os
import sys
import warnings
from collections.abc import Iterator

# One thread of torch, here and in every process a test starts, and before torch is loaded: these tensors are
# tiny, and threads that wait for each other spin, which on busy cores takes a hundred times as long.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from hypothesis import HealthCheck, settings

from tests import locks
from tests.needs import NEEDS, told

os.environ["HF_HUB_OFFLINE"] = "1"

MISMATCHES = locks.mismatches(locks.text("dev"))
SHOWN = (DeprecationWarning, PendingDeprecationWarning, FutureWarning) if MISMATCHES else ()
for _category in SHOWN:  # now, for what the other conftest.py import; pytest_configure is for the rest
    warnings.simplefilter("default", _category)

# A machine that stands still for a second is no failure of the example that it had in hand.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TOSA_VQA_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """A service changes what later threads start with; the next test must not inherit it."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    """Let deprecations pass, but be shown, where other versions are installed than those of the lock."""
    for category in SHOWN:
        config.addinivalue_line("filterwarnings", f"default::{category.__name__}")


def pytest_report_header() -> str:
    """Say whether deprecations are errors, and if not, why."""
    if not MISMATCHES:
        return "deprecations: errors, the versions are those of locks/dev.txt"
    return f"deprecations: shown, these packages are not those of locks/dev.txt: {', '.join(MISMATCHES)}"


# Minutes of one process each. Begun first, so that the processes end together.
SLOW = (
    "docs/test_commands",
    "tosa/test_invariants",
    "vlm/test_adapters",
    "vlm/test_towers",
    "service/test_server_life",
    "service/test_browser",
    "service/test_soak",
)


# The collector would walk 13,000 collected tests again and again, and stop a service for half a second.
gc.set_threshold(100_000, 50, 100)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.with_suffix("").as_posix().endswith(SLOW), reverse=True)
    for item in items:
        for name in ("gpu", "containers", "long", "vllm"):
            if item.get_closest_marker(name) and not NEEDS[name].is_met():
                item.add_marker(pytest.mark.skip(reason=NEEDS[name].reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was skipped by its reason, which says how to run it."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section(f"{len(skipped)} skipped: what they need, and how to get it")
        reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in skipped]
        terminalreporter.write_line("\n".join(told(reasons)))
