"""What is inside the built images: nothing that a container does not need, and what the bills say."""

from __future__ import annotations

import subprocess
from functools import cache

import pytest

from bench.containers.build import arguments, build
from bench.containers.engine import Engine, engine
from bench.supply_chain import pins
from bench.supply_chain.bom import debian_packages
from tests.containers import contents
from tests.containers.contents import Contents

pytestmark = pytest.mark.containers


@cache
def inside(image: str) -> Contents:
    """Read an image from a container that is never started: 20 s for the one for CPUs."""
    found = engine()
    assert found is not None
    container = found("create", image, "true").splitlines()[-1]
    try:
        command = [found.program, "export", container]
        with subprocess.Popen(command, env=found.environment, stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            read = contents.read(export.stdout)
        assert export.returncode == 0
        return read
    finally:
        found("rm", "--force", container)


@pytest.fixture
def files(image: str) -> Contents:
    return inside(image)


def argument(found: Engine, name: str) -> str | None:
    """Return a build argument of this machine."""
    values = dict(word.split("=", 1) for word in arguments(found) if "=" in word)
    return values.get(name)


def test_nothing_runs_as_somebody_else(files: Contents) -> None:
    assert contents.setuid(files) == []


def test_the_user_of_the_container_owns_two_folders(files: Contents) -> None:
    assert sorted(contents.writable(files)) == sorted(contents.WRITABLE)


def test_there_are_no_secrets(files: Contents, image: str, found: Engine) -> None:
    assert contents.secrets(files) == {}
    known = found("image", "inspect", image) + found("history", "--no-trunc", image)
    assert contents.secrets_in("image.json", known.encode()) == []


def test_no_tools_were_added_to_the_base(files: Contents, found: Engine) -> None:
    base = argument(found, "PYTHON_IMAGE")
    assert base is not None and contents.tools(files.since(inside(base))) == []


def test_the_packages_are_those_of_the_bill(files: Contents, image: str, found: Engine) -> None:
    """But for the version of torch for CPUs, where this machine takes it from a folder of its own."""
    locked = pins.contents(image.rpartition(":")[2], f"{contents.python(files)}.0")
    expected = {pin.name: pin.version for pin in locked}
    installed = {name: version.partition("+")[0] for name, version in contents.packages(files).items()}
    assert installed.pop("tosa-vqa")
    if argument(found, "TORCH_CPU") is not None and not image.endswith(":cuda"):
        expected |= {name: installed.get(name, "") for name in pins.TORCH if name in expected}
    assert installed == expected


def test_every_package_of_debian_has_its_licence(files: Contents) -> None:
    names = [name for name, _, _ in debian_packages(files.status)]
    assert len(names) > 50 and contents.without_licence(files, names) == []


def test_two_builds_are_equal_but_for_times(cpu: str, found: Engine) -> None:
    """Everything but the base image is built anew: about two minutes."""
    try:
        build(found, "cpu", ["--no-cache", *arguments(found)], tag="tosa-vqa:again")
        assert contents.differences(inside(cpu), inside("tosa-vqa:again")) == []
    finally:
        found.tried("rmi", "--force", "tosa-vqa:again")
