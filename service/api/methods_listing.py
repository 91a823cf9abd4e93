"""The merging methods as GET /methods lists them, read from the declaration of each method."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from service.request.schemas import DEFAULT_KEEP_RATIO, VqaFields
from tosa import METHODS, MergeMethod
from tosa.methods.options import settings_of


def methods_listing() -> dict[str, Any]:
    """List every method, and the defaults of a request."""
    defaults = ("schedule", "alpha", "spatial_kernel", "order")
    return {
        "methods": [describe(method) for method in METHODS.values()],
        "defaults": {
            "method": {"with_depth": "tosa", "without_depth": "none"},
            "keep_ratio": DEFAULT_KEEP_RATIO,
            **{name: VqaFields.model_fields[name].default for name in defaults},
        },
    }


def describe(method: MergeMethod) -> dict[str, Any]:
    """Describe a method: its needs, its merge budgets and its options.

    needs_depth: always, never, or if asked: when `depth_option` is above 0. layers: all, first_half, or one,
    from `first_layer` on as few as the target needs; null where nothing merges.
    """
    is_one = method.merges and method.layers == "one"
    return {
        "name": method.name,
        "title": method.title,
        "paper": method.paper,
        "needs_depth": _needs_depth(method),
        "depth_option": method.spatial_option,
        "keeps_grid": method.keeps_grid,
        "dials": _budgets(method),
        "prop_attn": method.prop_attn,
        "layers": method.layers if method.merges else None,
        "first_layer": method.first_layer if is_one else None,
        "options": [_option(asdict(setting)) for setting in settings_of(method.options)],
    }


def _needs_depth(method: MergeMethod) -> str:
    if method.needs_spatial:
        return "always"
    return "never" if method.spatial_option is None else "if asked"


def _budgets(method: MergeMethod) -> list[str]:
    if not method.merges:
        return []
    return ["keep_ratio", "r_hw" if method.keeps_grid else "r"]


def _option(setting: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": setting["name"],
        "type": setting["type"],
        "default": setting["default"],
        "description": setting["doc"],
    }
