"""Every package of an image has a licence that somebody has looked at."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from bench.supply_chain import licences, pins
from bench.supply_chain.licences import Licence
from tests.docker import recipes
from tests.docker.test_containers import STAGES, TARGETS
from tests.locks import mismatches, text, versions

Values = Callable[[str], list[str] | None]
OSI = "License :: OSI Approved"
STALE = "run: make licences"


def test_every_package_of_every_image_is_listed() -> None:
    locked = {name: pin.version for name, pin in pins.everything().items()}
    assert {name: each.version for name, each in licences.listed().items()} == locked, STALE


def test_no_licence_is_new() -> None:
    assert licences.new(licences.listed()) == [], "read it, and add it to PERMISSIVE or CONDITIONS"


def test_a_new_licence_is_told() -> None:
    found = {
        "one": Licence("1.0", "MIT OR AGPL-3.0-only"),
        "two": Licence("2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
    }
    assert licences.new(found) == [
        "one 1.0: AGPL-3.0-only",
        "two 2.0: GPL-2.0-only WITH Classpath-exception-2.0",
    ]


def test_the_list_says_what_the_installed_packages_say() -> None:
    """Those that are here; `make licences` reads the others in environments of their own."""
    seen = 0
    for name, each in licences.listed().items():
        try:
            here = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if here.version.partition("+")[0] == each.version:
            assert licences.expression_of(name, here.metadata.get_all) == each.expression, STALE
            seen += 1
    assert seen > 30 or mismatches(text("dev")), "other versions than the lock's are installed"


def fields(**values: str | list[str]) -> Values:
    """Return what gives the values of a field by its name."""
    every = {key.replace("_", "-"): [each] if isinstance(each, str) else each for key, each in values.items()}
    return every.get


@pytest.mark.parametrize(
    ("name", "said", "expression"),
    [
        ("one", fields(License_Expression="MIT", License="BSD"), "MIT"),
        ("one", fields(License="MPL-2.0 AND MIT"), "MPL-2.0 AND MIT"),
        ("one", fields(License="Apache 2.0", Classifier=[f"{OSI} :: BSD License"]), "Apache-2.0"),
        ("one", fields(Classifier=[f"{OSI} :: MIT License"]), "MIT"),
        ("jinja2", fields(Classifier=[f"{OSI} :: BSD License"]), "BSD-3-Clause"),
        ("one", fields(License="A text\nof lines", Classifier=[f"{OSI} :: ISC License"]), "ISC"),
    ],
)  # fmt: skip
def test_the_fields_of_packages_are_read(name: str, said: Values, expression: str) -> None:
    assert licences.expression_of(name, said) == expression


@pytest.mark.parametrize(
    "said",
    [
        fields(),
        fields(License="UNKNOWN", Classifier=[f"{OSI} :: BSD License"]),
        fields(License="BSD", Classifier=[f"{OSI} :: BSD License"]),
        fields(Classifier=[f"{OSI} :: MIT License", f"{OSI} :: ISC License"]),
    ],
)
def test_what_may_be_several_licences_is_read_by_a_person(said: Values) -> None:
    with pytest.raises(ValueError, match="write it into READ"):
        licences.expression_of("one", said)


def test_what_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="torch"):
        licences.read([tmp_path])


def test_images_hold_what_the_dockerfile_installs() -> None:
    assert set(pins.IMAGES) == set(TARGETS)
    for image in ("cpu", "ray", "load"):
        kept = versions(recipes.without_cuda(text(pins.IMAGES[image]), STAGES))
        own = {pin.name for pin in pins.contents(image)}
        has_torch = "torch-cpu" in {stage.name for stage in recipes.lineage(image, STAGES)}
        assert own & set(pins.TORCH) == (set(pins.TORCH) if has_torch else set())
        assert own - set(pins.TORCH) <= kept.keys()
    assert {pin.name for pin in pins.contents("cuda")} - {pin.name for pin in pins.contents("cpu")} == {
        name for name in pins.everything() if pins.CUDA.fullmatch(name)
    }
    assert f"python:{pins.INSIDE['python_full_version']}-" in recipes.lineage("cpu", STAGES)[-1].base
