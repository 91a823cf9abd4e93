"""The bills of materials fit the schema of CycloneDX, and hold what the locks hold."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bench.supply_chain.bom import MODELS, bill, debian_packages
from bench.supply_chain.pins import IMAGES, TORCH, contents

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u13
Description: GNU C Library
 It says: more.

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0
"""


@cache
def schema() -> JsonStrictValidator:
    """Read the schema once: it takes a second."""
    return JsonStrictValidator(SchemaVersion.V1_6)


@pytest.mark.parametrize("image", IMAGES)
def test_a_bill_holds_every_package_with_version_licence_and_hashes(image: str) -> None:
    written = bill(image)
    assert schema().validate_str(written) is None
    parts = {each["name"]: each for each in json.loads(written)["components"]}
    assert set(parts) == {pin.name for pin in contents(image)} | MODELS.keys()
    for pin in contents(image):
        part = parts[pin.name]
        assert part["purl"] == f"pkg:pypi/{pin.name}@{pin.version}" and part["licenses"][0]["expression"]
        hashed = [each["hashes"] for each in part.get("externalReferences", [])]
        assert bool(hashed) == (image == "cuda" or pin.name not in TORCH), pin.name
    assert len(parts["room-tiny"]["components"]) > 5


def test_the_same_lock_gives_the_same_bytes_and_another_one_does_not() -> None:
    one, again, other = bill("cpu"), bill("cpu"), bill("load")
    assert one == again and "timestamp" not in one
    assert json.loads(one)["serialNumber"] != json.loads(other)["serialNumber"]


def test_the_packages_of_debian_are_added_from_a_root_file_system(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    assert list(debian_packages(STATUS)) == [("libc6", "2.36-9+deb12u13", "amd64")]
    written = bill("cpu", tmp_path)
    assert schema().validate_str(written) is None
    assert "pkg:deb/debian/libc6@2.36-9" in written


def test_a_bill_that_does_not_fit_is_told() -> None:
    broken = json.loads(bill("cpu"))
    broken["components"][0]["kind"] = "library"
    assert schema().validate_str(json.dumps(broken)) is not None
