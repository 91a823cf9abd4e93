"""Every cell of the table of families, views and methods, from the plan of a picture."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.vlm.cells import KEEP_RATIOS, NOTHING, OTHERS, cells, deep, every_cell
from tests.vlm.families import CASES, kinds, write_processor
from tosa import METHODS, MergeSpec, PlanError, make_plan
from vlm import VlmError
from vlm.check import FRAMES, PICTURE
from vlm.description import describe
from vlm.families import Family


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Family]:
    """Describe a checkpoint without weights, of the real sizes and depth."""

    @cache
    def family(name: str) -> Family:
        at = tmp_path_factory.mktemp(name)
        write_processor(at, name, real=True, change=deep)[0].save_pretrained(at)
        return describe(str(at), at).family

    return family


@pytest.mark.parametrize(("name", "views"), every_cell())
def test_a_cell_saves_what_the_table_says(family: Callable[[str], Family], name: str, views: Any) -> None:
    it, expected = family(name), cells(name, views)
    assert set(expected) == {method for method, each in METHODS.items() if each.merges}
    found = {method: tuple(saved(it, views, method, keep) for keep in KEEP_RATIOS) for method in expected}
    assert {method: tuple(dict.fromkeys(each)) for method, each in found.items()} == {
        method: tuple(dict.fromkeys(each)) for method, each in expected.items()
    }


def saved(family: Family, views: Any, method: str, keep_ratio: float) -> str:
    """Return what a method saves of the picture or the frames, or the code of its refusal."""
    try:
        (layout,) = family.layouts([PICTURE] * (FRAMES if views == "video" else 1), views)
        plan = make_plan(MergeSpec(method, keep_ratio=keep_ratio), family.shape(layout))
    except (VlmError, PlanError) as error:
        return error.code
    return "+".join(family.saves(layout, plan)) or NOTHING


def test_the_table_has_no_views_that_a_family_has_not() -> None:
    for name, views in OTHERS.items():
        assert set(views) <= {"auto", *kinds(name)}
    assert set(OTHERS) <= set(CASES)
