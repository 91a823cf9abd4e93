"""Tables of what the images hold, from the locks and locks/licences.json."""

from __future__ import annotations

from bench.supply_chain import licences
from bench.supply_chain.pins import images_of
from bench.tables.markdown import table


def packages() -> str:
    """Return the table of the page: every package, its licence, and the images that hold it."""
    rows = [
        [f"`{name}`", each.version, each.expression, " ".join(images_of(name))]
        for name, each in sorted(licences.listed().items())
    ]
    return table(["package", "version", "licence", "images"], rows, right=False)


def conditions() -> str:
    """Return the table of licences that ask for more than a notice."""
    rows = [
        [
            name,
            ", ".join(
                f"`{one}`"
                for one, each in sorted(licences.listed().items())
                if name in licences.symbols(each.expression)
            ),
            text,
        ]
        for name, text in licences.CONDITIONS.items()
    ]
    return table(["licence", "packages", "what it asks for"], rows, right=False)
