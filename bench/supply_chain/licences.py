"""Read the licences of installed packages into locks/licences.json, as SPDX expressions.

The one that a package gives, or else what its older fields say, or else what a person read.

python -m bench.supply_chain.licences ENVIRONMENT ...
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from license_expression import ExpressionError, Licensing, get_spdx_licensing

from bench.supply_chain.pins import everything
from tests.locks import LOCKS

LISTED = LOCKS / "licences.json"
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC0-1.0", "CNRI-Python", "ISC", "LicenseRef-matplotlib", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0"),
    *("Zlib", "ZPL-2.1"),
}
"""Ask for a notice at most."""
CONDITIONS = {
    "MPL-2.0": "Changed files of the package have to be published.",
    "GPL-2.0-only": "A program that Ray brings and this service does not start. Who passes on an image with "
    "it has to offer its source too.",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA's terms for CUDA: libraries may be passed on as parts of an "
    "application, with conditions.",
}
"""Ask for more; each was looked at."""
ACCEPTED = PERMISSIVE | CONDITIONS.keys()
READ = {
    "colorama": "BSD-3-Clause",
    "contourpy": "BSD-3-Clause",
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    "cycler": "BSD-3-Clause",
    "itsdangerous": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "LicenseRef-matplotlib",
    "mpmath": "BSD-3-Clause",
    "pyasn1-modules": "BSD-2-Clause",
    "sympy": "BSD-3-Clause AND MIT",
    "torchvision": "BSD-3-Clause",
    "uvloop": "MIT OR Apache-2.0",
}
"""Read by a person in the files of packages whose fields say less."""
SPELLINGS = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "GPLv2": "GPL-2.0-only",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
"""Names in older fields and in classifiers that mean one licence. "BSD License" may be several."""


class Licence(NamedTuple):
    """Of one package in one version, as an SPDX expression."""

    version: str
    expression: str


def expression_of(name: str, values: Callable[[str], list[str] | None]) -> str:
    """Return the licence of a package by the values of its fields. Raises ValueError if none says which."""
    classifiers = [each.split(" :: ")[-1] for each in values("Classifier") or [] if "License" in each]
    said = [*(values("License") or []), *(classifiers if len(classifiers) == 1 else [])]
    known = [each for each in (SPELLINGS.get(one.strip(), one.strip()) for one in said) if is_spdx(each)]
    for each in (*(values("License-Expression") or []), *filter(None, [READ.get(name)]), *known):
        return each
    raise ValueError(f"{name} says {said}: read its licence, and write it into READ")


def is_spdx(text: str) -> bool:
    """Say whether a text is an expression of SPDX, or a name that SPELLINGS has for another licence."""
    try:
        return text in SPELLINGS.values() or _spdx().parse(text, validate=True) is not None
    except ExpressionError:
        return False


def symbols(expression: str) -> set[str]:
    """Return the licences that an expression names, each with its exception."""
    return {str(each.render()) for each in _spdx().license_symbols(expression, decompose=False)}


@cache
def _spdx() -> Licensing:
    return get_spdx_licensing()


def read(environments: Iterable[Path]) -> dict[str, Licence]:
    """Read the licences of all packages of the images. Raises LookupError for one that is not installed."""
    wanted, found = everything(), dict[str, Licence]()
    for environment in environments:
        for each in distributions(path=[str(path) for path in environment.glob("lib/python*/site-packages")]):
            name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
            if name in wanted and each.version.partition("+")[0] == wanted[name].version:
                found[name] = Licence(wanted[name].version, expression_of(name, each.metadata.get_all))
    if missing := wanted.keys() - found.keys():
        raise LookupError(f"not installed in the versions of the locks: {', '.join(sorted(missing))}")
    return found


def listed() -> dict[str, Licence]:
    """Return what locks/licences.json says."""
    return {name: Licence(*each) for name, each in json.loads(LISTED.read_text(encoding="utf-8")).items()}


def new(found: dict[str, Licence]) -> list[str]:
    """Say which licences nobody has looked at yet."""
    return [
        f"{name} {each.version}: {symbol}"
        for name, each in sorted(found.items())
        for symbol in sorted(symbols(each.expression) - ACCEPTED)
    ]


def main() -> None:
    """Write locks/licences.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environments", type=Path, nargs="+", help="Environments with what the locks hold.")
    found = read(parser.parse_args().environments)
    lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in sorted(found.items())]
    LISTED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    for line in new(found):
        print(f"new: {line}")


if __name__ == "__main__":
    main()
