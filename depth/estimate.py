"""Depth from an image alone: the protocol of estimators, and the conversion of their output to DepthMaps."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depth.depth_map import DepthMap, metric_depth
from depth.errors import DepthError

Kind = Literal["inverse", "metric"]


class EstimatorError(Exception):
    """Say in one sentence why an estimator cannot be loaded or did not give depth.

    `code` is stable and machine readable: model_not_found, unsupported_model, licence_refused,
    no_safetensors, broken_checkpoint, device_unavailable, invalid_size, estimate_failed. Only the sentence of
    estimate_failed is free of names and paths.
    """

    field = "depth"
    limit: float | None = None
    choices: tuple[str, ...] | None = None

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class is called with the sentence alone.
        return type(self).__new__, (type(self), *self.args), self.__dict__


class DepthEstimator(Protocol):
    """Estimate the depth of every pixel of an image.

    `kind` is "inverse" (no unit, grows towards the camera) or "metric" (metres, grows with distance).
    `id`, `revision` and `size_px` together identify its output, so that it can be cached.
    """

    @property
    def id(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def licence(self) -> str | None: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def size_px(self) -> int: ...

    def predict(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return [n, h, w] maps of `kind` for n >= 1 images; a map spans all of its image."""
        ...


def estimate(estimator: DepthEstimator, images: Sequence[Image.Image]) -> list[DepthMap]:
    """Estimate one DepthMap per image.

    Images of any size and mode, upright; alpha is dropped. Maps have the estimator's own resolution: all of
    the image, squashed. Inverse depth below 0 becomes 0 (infinitely far); invalid metric depth is
    masked. Raises EstimatorError (estimate_failed) for values that are not finite or a map without any depth.
    """
    if not images:
        return []
    maps = estimator.predict(images)
    if maps.ndim != 3 or len(maps) != len(images):
        raise _failed(f"gave an array of shape {maps.shape} for {len(images)} images")
    if not np.isfinite(maps).all():
        raise _failed("gave values that are not finite (float16 can overflow, float32 does not)")
    return [_depth_map(estimator, values) for values in maps]


def _depth_map(estimator: DepthEstimator, values: NDArray[np.float32]) -> DepthMap:
    if estimator.kind == "metric":
        try:
            return metric_depth(values)
        except DepthError as error:  # its sentence speaks of a file that somebody sent
            raise _failed("gave no distance above 0 for any pixel") from error
    inverse = np.maximum(values, np.float32(0))
    return DepthMap(inverse, "inverse", None, np.ones(inverse.shape, np.bool_))


def _failed(what: str) -> EstimatorError:
    return EstimatorError(
        "estimate_failed", f"the depth estimator {what}: send a depth map, or ask without depth."
    )
