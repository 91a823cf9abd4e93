"""The audit fails where something is known, and where nothing could be looked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from bench.supply_chain import audit as audits
from bench.supply_chain.audit import audit
from tests.locks import Pin

PINS = [Pin("one", "1.0", None), Pin("two", "2.0", None)]
BAD = [{"id": "CVE-1", "fix_versions": ["2.1"]}, {"id": "CVE-2", "fix_versions": []}]


class Services:
    """Services that answer or do not, as `ask` would report it, and what they were asked."""

    def __init__(self, **answers: dict[str, dict[str, Any]] | None) -> None:
        self.answers, self.asked = answers, list[tuple[str, int]]()

    def __call__(self, service: str, pins: Iterable[Pin]) -> list[dict[str, Any]] | None:
        pins = list(pins)
        self.asked.append((service, len(pins)))
        answer = self.answers.get(service)
        if answer is None:
            return None
        return [
            {"name": pin.name, "version": pin.version, **answer.get(pin.name, {"vulns": []})} for pin in pins
        ]


def test_nothing_known_is_told_with_the_number_of_packages() -> None:
    services = Services(pypi={})
    assert audit(PINS, services) == (0, ["2 packages audited with pypi: 0 known vulnerabilities"])
    assert services.asked == [("pypi", 1), ("pypi", 2)]


def test_what_is_known_fails() -> None:
    code, lines = audit(PINS, Services(pypi={"two": {"vulns": BAD}}))
    assert code == 1
    assert lines[:2] == ["two 2.0: CVE-1, fixed in 2.1", "two 2.0: CVE-2, fixed in none"]


@pytest.mark.parametrize("pypi", [None, {"one": {"skip_reason": "not found"}}])
def test_a_service_without_data_is_asked_once_and_then_the_other(
    pypi: dict[str, dict[str, Any]] | None,
) -> None:
    services = Services(pypi=pypi, osv={})
    assert audit(PINS, services) == (0, ["2 packages audited with osv: 0 known vulnerabilities"])
    assert services.asked == [("pypi", 1), ("osv", 1), ("osv", 2)]


def test_without_data_the_audit_fails_and_says_so() -> None:
    code, (line,) = audit(PINS, Services())
    assert code == 2 and line.startswith("NOT AUDITED: neither pypi nor osv")


def test_a_package_without_data_fails() -> None:
    code, lines = audit(PINS, Services(pypi={"two": {"skip_reason": "not found"}}))
    assert (code, lines) == (
        2,
        ["not audited: two: not found", "1 packages audited with pypi: 0 known vulnerabilities"],
    )


def test_pip_audit_takes_the_options_and_a_failure_of_it_is_no_answer() -> None:
    """An unknown service is refused before anything is asked; the real ones are not asked in tests."""
    assert audits.ask("none", PINS) is None
