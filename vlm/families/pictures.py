"""How the pictures of a family become views: laid out by size, and made as its own processor makes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from vlm.checkpoint_files import three
from vlm.families.agreement import require_made_views, require_side
from vlm.families.layout import VIEWS, Grid, Layout, Size, Views
from vlm.families.settings import has_video_processor, written_settings
from vlm.model import ImageSettings, VlmError
from vlm.preprocess import square_views

MOST_ASPECT = 100
"""Narrower pictures, which processors cannot resize, are only seen as one square."""


class Pictures:
    """Describe the views of a checkpoint. kinds: those that can be asked for, beside "auto".

    no_videos: why this checkpoint has none, where its kinds have them.
    """

    kinds: ClassVar[tuple[Views, ...]] = ("single",)
    no_videos: str = ""

    def __init__(self, config: Any, folder: Path | None = None, tokenizer: Any = None) -> None:
        self.config, self.folder, self.tokenizer = config, folder, tokenizer

    @property
    def vision(self) -> Any:
        """Return the config of the tower."""
        return self.config.vision_config

    @cached_property
    def processor(self) -> Any:
        """Return the image processor of transformers, loaded when it is first needed."""
        from transformers import AutoImageProcessor

        assert self.folder is not None, "a family without a folder has no image processor"
        return AutoImageProcessor.from_pretrained(self.folder, trust_remote_code=False)

    @cached_property
    def processing(self) -> str:
        """Return all that the checkpoint says about making views, for keys of caches."""
        assert self.folder is not None, "a family without a folder has no image settings"
        return written_settings(self.folder)

    @cached_property
    def video_processor(self) -> Any:
        """Return the video processor of transformers, loaded when it is first needed."""
        from transformers import AutoVideoProcessor

        assert self.folder is not None, "a family without a folder has no video processor"
        return AutoVideoProcessor.from_pretrained(self.folder, trust_remote_code=False)

    def require_agreement(self) -> None:
        """Raise Disagreement where the image processor makes other views than the config says."""
        self.look_for_videos()
        square = self.processor.crop_size if _crops(self.processor) else self.processor.size
        require_side(dict(square or {}), self.view_px)
        require_made_views(self)

    def look_for_videos(self) -> None:
        """Note that there is no video processor."""
        if self.folder is not None and "video" in self.kinds and not has_video_processor(self.folder):
            self.no_videos = "this checkpoint has no video processor"

    def pixel_shape(self, layout: Layout) -> tuple[int, ...]:
        """Return the shape of what `pixels` makes of the pictures of a layout."""
        return len(layout.views), 3, *layout.pixels

    def layouts(self, sizes: Sequence[Size], views: Views = "auto") -> tuple[Layout, ...]:
        """Lay out the pictures of one prompt by their (height, width); a video is one layout of all of them.

        "auto" is what the checkpoint's own processor does. Raises VlmError (unsupported_views), and
        unsupported_image for a picture or video that these views cannot be made of.
        """
        if views != "auto" and views not in self.offered:
            known = tuple(each for each in VIEWS if each == "auto" or each in self.offered)
            what = self.no_videos if views in self.kinds else f"{self.config.model_type} has no views {views}"
            message = f"{what}; it has {', '.join(known)}."
            raise VlmError("unsupported_views", message, field="views", choices=known)
        for size in sizes:
            if max(size) > MOST_ASPECT * min(size) and not self.squeezes(views):
                raise _too_narrow(size, self.squeezes("single"))
        if views == "video":
            _require_one_size(sizes)
            return (self.video_layout(sizes),) if sizes else ()
        return tuple(self.layout(size, views, len(sizes)) for size in sizes)

    @property
    def offered(self) -> tuple[Views, ...]:
        """Return the views of this checkpoint, beside "auto"."""
        return tuple(each for each in self.kinds if each != "video" or not self.no_videos)

    def squeezes(self, views: Views) -> bool:
        """Say whether a picture of any proportions becomes a view of the tower's own."""
        return views in ("single", "video")

    def layout(self, size: Size, views: Views, num_images: int) -> Layout:
        """Lay out one picture of so many."""
        return self.whole(size)

    def video_layout(self, sizes: Sequence[Size]) -> Layout:
        """Lay out the frames of one video."""
        raise NotImplementedError

    def whole(self, size: Size) -> Layout:
        """Return the layout of one view of the whole picture."""
        return Layout("single", size, self.grid, self.view_px)

    @property
    def view_px(self) -> Size:
        """Return (height, width) of a view in px, where it does not depend on the picture."""
        side = self.vision.image_size
        return (side, side) if isinstance(side, int) else (side[0], side[1])

    @property
    def patch_px(self) -> Size:
        """Return (height, width) of a patch in px."""
        patch = self.vision.patch_size
        return (patch, patch) if isinstance(patch, int) else (patch[0], patch[1])

    @property
    def grid(self) -> Grid:
        """Return the patches of a view, where they do not depend on the picture."""
        rows, columns = self.patch_px
        return self.view_px[0] // rows, self.view_px[1] // columns

    @cached_property
    def settings(self) -> ImageSettings:
        """Return how the square view of a whole picture is made."""
        return self._settings_of(self.processor)

    @cached_property
    def video_settings(self) -> ImageSettings:
        """Return how the square view of a frame of a video is made. Raises Disagreement."""
        require_side(dict(self.video_processor.size or {}), self.view_px)
        return self._settings_of(self.video_processor)

    def _settings_of(self, processor: Any) -> ImageSettings:
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        return ImageSettings(
            size_px=self.view_px[0],
            mean=_three(processor.image_mean) if processor.do_normalize else three(0.0),
            std=_three(processor.image_std) if processor.do_normalize else three(1.0),
            rescale=float(scale),
            resample=int(processor.resample),
        )

    def pixels(self, images: Sequence[Image.Image], layout: Layout) -> Tensor:
        """Return the inputs of the tower for one picture or the frames of one video: [views, ...]."""
        return square_views(self.settings, images)

    def _processed(self, image: Image.Image, **options: Any) -> Tensor:
        """Run the image processor on one picture; return its views [views, 3, H, W]."""
        values = self.processor(images=[image], return_tensors="pt", **options)["pixel_values"]
        return values if values.ndim == 4 else values.flatten(0, 1)


def _crops(processor: Any) -> bool:
    return bool(getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None))


def _too_narrow(size: Size, has_square: bool) -> VlmError:
    message = (
        f"an image of {size[1]} x {size[0]} px is more than {MOST_ASPECT} times as long as wide, which these "
        f"views cannot show: crop it{', or ask for views single' if has_square else ''}."
    )
    return VlmError("unsupported_image", message, field="image", limit=MOST_ASPECT)


def _require_one_size(sizes: Sequence[Size]) -> None:
    """Raise VlmError for frames of several sizes: a video has one."""
    different = list(dict.fromkeys(f"{width} x {height}" for height, width in sizes))
    if len(different) > 1:
        message = f"the frames of a video have one size; these have {', '.join(different[:3])} px."
        raise VlmError("unsupported_views", message, field="views")


def _three(value: Any) -> tuple[float, float, float]:
    return three(value if isinstance(value, int | float) else list(value))
