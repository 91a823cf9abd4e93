"""The locks hold what pyproject.toml asks for, agree with each other, and name no index and no machine."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement

from tests import locks

EXTRAS = {name: (name,) for name in ("dev", "ray", "load", "peers", "notebooks")} | {"runtime": ("serve",)}
ONE = "one==1.0 \\\n    --hash=sha256:0a \\\n    --hash=sha256:0b\n"


def unmet(asked: list[Requirement], have: dict[str, str]) -> list[str]:
    """Return the requirements that a lock leaves open."""
    found = {each: have.get(each.name.lower().replace("_", "-")) for each in asked}
    return [str(each) for each, version in found.items() if not version or version not in each.specifier]


@pytest.mark.parametrize("lock", EXTRAS)
def test_locks_hold_what_is_asked_for(lock: str) -> None:
    assert unmet(locks.requirements(*EXTRAS[lock]), locks.versions(locks.text(lock))) == []


def test_a_lock_that_was_not_renewed_is_seen() -> None:
    asked = [Requirement(each) for each in ("one>=1", "one>=2", "two")]
    assert unmet(asked, {"one": "1.0"}) == ["one>=2", "two"]


def test_locks_agree() -> None:
    held: dict[str, str] = {}
    for lock in (*EXTRAS, "tools"):
        have = locks.versions(locks.text(lock))
        assert {name: held[name] for name in have.keys() & held.keys()} == {
            name: version for name, version in have.items() if name in held
        }
        held |= have
    for lock in EXTRAS:
        assert locks.versions(locks.text("runtime")).keys() <= locks.versions(locks.text(lock)).keys()


def test_one_version_serves_every_python() -> None:
    """What is tested here is what images and other machines get."""
    for lock in EXTRAS:
        names = [pin.name for pin in locks.pins(locks.text(lock))]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("lock", [*EXTRAS, "tools", "torch-cpu"])
def test_locks_name_no_index_and_no_machine(lock: str) -> None:
    assert not re.search(r"://|--\w*index|--find-links|@ |/", locks.text(lock))


@pytest.mark.parametrize(
    "broken", ["one==1.0\n", "--index-url x\n" + ONE, "-e .\n" + ONE, ONE.replace("==", ">=")]
)
def test_what_is_not_pinned_is_refused(broken: str) -> None:
    assert locks.versions(ONE) == {"one": "1.0"}
    with pytest.raises(ValueError, match="hashes"):
        locks.pins(broken)


def test_mismatches_with_a_lock_are_told() -> None:
    old = "pytest==0.1 \\\n    --hash=sha256:0a\n"
    (told,) = locks.mismatches(ONE + old)
    assert told.startswith("pytest ") and told.endswith("(lock: 0.1)")
    elsewhere = old.replace(" \\", " ; sys_platform == 'nowhere' \\", 1)
    same = old.replace("0.1", pytest.__version__)
    assert locks.mismatches(elsewhere) == locks.mismatches(same) == []
