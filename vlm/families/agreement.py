"""Whether the image processor of a checkpoint makes the views that the config of its model says.

The layout of a picture follows from both. Where they disagree, the first picture would fail, or be read as
another one, so it is refused while loading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from vlm.families.layout import Size

if TYPE_CHECKING:
    from vlm.families.pictures import Pictures

TRIED_SIZE: Size = (96, 128)
"""Height and width in px of the picture that loading tries."""
FRAMES = 3
COPY = "copy the files of the processor from the model that it was made from"


class Disagreement(ValueError):
    """One sentence on what config.json and the image processor say differently."""


def require_equal(name: str, processors: Any, configs: Any) -> None:
    """Raise Disagreement where the image processor says something else than the config."""
    if processors != configs:
        raise Disagreement(
            f"its image processor says {name} {processors}, and its config.json says {configs}: {COPY}"
        )


def require_pinpoints(processors: Sequence[Sequence[int]], configs: Sequence[Sequence[int]]) -> None:
    """Raise Disagreement for other sizes of canvases, or another order, which decides between equal ones."""
    ours, theirs = ([tuple(each) for each in sizes] for sizes in (configs, processors))
    if ours == theirs:
        return
    first = next((each for each in theirs if each not in ours), None) or next(
        (each for each in ours if each not in theirs), None
    )
    what = "the same ones in another order" if first is None else f"{first} is in one of them alone"
    raise Disagreement(
        f"its image processor has {len(theirs)} image_grid_pinpoints, and its config.json has {len(ours)} "
        f"({what}): {COPY}"
    )


def require_side(size: Mapping[str, int], view_px: Size) -> None:
    """Raise Disagreement for an image processor of square views whose side is not the tower's, in px."""
    sides = {name: size[name] for name in ("height", "width") if size.get(name) is not None}
    if any(side != view_px[0] for side in sides.values()):
        raise Disagreement(f"its image processor says size {sides} for a tower of {view_px[0]} px: {COPY}")


def require_made_views(family: Pictures) -> None:
    """Make every kind of views once; raise Disagreement if they are not those of the layout."""
    height, width = TRIED_SIZE
    for views in ("auto", *family.offered):
        images = [Image.new("RGB", (width, height))] * (FRAMES if views == "video" else 1)
        (layout,) = family.layouts([TRIED_SIZE] * len(images), views)
        made, expected = tuple(family.pixels(images, layout).shape), family.pixel_shape(layout)
        if made != expected:
            raise Disagreement(
                f"its image processor makes {_written(made)} values of a picture of {width} x {height} px "
                f"(views {views}), and its config.json says {_written(expected)}: {COPY}"
            )


def _written(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
