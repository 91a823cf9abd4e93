"""What merging saves in every family, with all views and every method; from the cases of the tests."""

from __future__ import annotations

from bench.tables.markdown import table
from tests.vlm.cells import KEEP_RATIOS, cells, every_cell


def cells_of_families() -> str:
    """Write a row for each family and its views with equal cells; methods with equal columns share one."""
    rows: dict[tuple[str, str], list[str]] = {}
    columns = _columns()
    for family, views in every_cell():
        found = cells(family, views)
        row = " | ".join(_cell(found[names[0]]) for names in columns)
        rows.setdefault((family, row), []).append(f"`{views}`")
    heads = ["model type", "views", *(", ".join(f"`{name}`" for name in names) for names in columns)]
    lines = [[f"`{family}`", ", ".join(views), row] for (family, row), views in rows.items()]
    return table(heads, lines, right=False)


def _columns() -> list[list[str]]:
    """Return the methods, those together that have equal cells everywhere."""
    together: dict[str, list[str]] = {}
    every = [cells(*each) for each in every_cell()]
    for method in every[0]:
        together.setdefault(str([found[method] for found in every]), []).append(method)
    return list(together.values())


def _cell(saved: tuple[str, ...]) -> str:
    first, *rest = saved
    later = [
        f"`{each}` at {keep:g}" for keep, each in zip(KEEP_RATIOS[1:], rest, strict=False) if each != first
    ]
    return "; ".join((f"`{first}`", *later))
