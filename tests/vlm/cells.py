"""What merging saves in every family, with all views and every method, for documentation and tests.

Of a picture of 640 x 480 px, or 8 such frames, with towers of 24 layers and the real sizes of views.
"""

from __future__ import annotations

from typing import Any

from tests.vlm.families import CASES, kinds
from tosa import METHODS
from vlm.families import VIEWS

KEEP_RATIOS = (0.25, 0.9)
LAYERS = 24
BOTH, TOWER, NOTHING, REFUSED = "vit+lm", "vit", "nothing", "unsupported_views"
FREE = tuple(name for name, method in METHODS.items() if method.merges and not method.keeps_grid)
GRID = tuple(name for name, method in METHODS.items() if method.merges and method.keeps_grid)

# Cells that are not BOTH: family -> views -> methods -> what is saved at each of KEEP_RATIOS.
TILES = {FREE: (BOTH, TOWER)}  # with the bars among them they would be more tokens than without merging
OTHERS: dict[str, dict[str, dict[tuple[str, ...], tuple[str, str]]]] = {
    "llava_onevision": {
        "auto": TILES,
        "anyres": TILES,
        "video": {
            FREE: (BOTH, TOWER),
            GRID: (BOTH, TOWER),
        },  # frames are pooled to 196 tokens without merging
    },
    "llava_next": {"auto": TILES, "anyres": TILES},
    "qwen2_5_vl": {  # the nearest grid of a window of 4 x 4 cells is the whole
        views: {GRID: (BOTH, NOTHING)} for views in ("auto", "single", "video")
    },
}

Cells = dict[str, tuple[str, ...]]


def cells(family: str, views: str) -> Cells:
    """Return what every method saves at each of KEEP_RATIOS, or the code it is refused with."""
    if views != "auto" and views not in kinds(family):
        return dict.fromkeys((*FREE, *GRID), (REFUSED,))
    others = OTHERS.get(family, {}).get(views, {})
    found: Cells = dict.fromkeys((*FREE, *GRID), (BOTH,) * len(KEEP_RATIOS))
    return found | {name: saved for names, saved in others.items() for name in names}


def every_cell() -> list[tuple[str, str]]:
    """List all families with all views, also those that they do not have."""
    return [(family, views) for family in CASES for views in VIEWS]


def deep(config: Any) -> None:
    """Give a tower as many layers as published ones have."""
    vision = config.vision_config
    setattr(vision, "depth" if hasattr(vision, "depth") else "num_hidden_layers", LAYERS)
    if hasattr(vision, "fullatt_block_indexes"):
        vision.fullatt_block_indexes = list(range(5, LAYERS, 6))
