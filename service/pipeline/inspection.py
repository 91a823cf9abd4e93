"""Inspect a depth file without a model: decode it as for a question, describe it, maybe render it."""

from __future__ import annotations

import base64
import io

from PIL import Image

from depth import DepthMap, DepthReport, check_alignment, depth_picture, note_alignment, read_depth
from service.budgets import Costs
from service.pipeline.depth_summary import of_report, rounded, understood
from service.pipeline.images import decode_image
from service.pipeline.response_models import DepthInspection, DepthValues
from service.request.schemas import DepthFields


def inspect(
    depth: bytes, image: bytes | None, fields: DepthFields, max_px: int, costs: Costs | None = None
) -> tuple[DepthMap, DepthInspection]:
    """Return the depth map and its description.

    costs: counts what is decoded. Raises DepthError, and ServiceError for the image.
    """
    costs = costs or Costs()
    decoded = None if image is None else decode_image(image, max_px)
    costs.pixels += 0 if decoded is None else decoded.width * decoded.height
    read, report = read_depth(depth, max_pixels=max_px, **fields.format_options())
    costs.pixels += read.values.size
    if decoded is not None:
        check_alignment(read, (decoded.height, decoded.width))
        report = note_alignment(report, read, decoded)
    return read, described(report, same_aspect=None if decoded is None else True)


def described(report: DepthReport, same_aspect: bool | None) -> DepthInspection:
    """Return a report as a response model."""
    return DepthInspection(
        **dict(understood([of_report(report)])),
        format=report.format,
        dtype=report.dtype,
        height=report.height,
        width=report.width,
        median=rounded(report.median),
        same_aspect=same_aspect,
    )


def values_of(depth: DepthMap, longest: int) -> DepthValues:
    """Return every n-th row and column of a map, at most `longest` of each."""
    step = -(-max(depth.shape) // longest)
    values, valid = depth.values[::step, ::step], depth.valid[::step, ::step]
    rounded_values = [
        float(f"{value:.4g}") if is_valid else None
        for value, is_valid in zip(values.ravel().tolist(), valid.ravel().tolist(), strict=True)
    ]
    return DepthValues(height=values.shape[0], width=values.shape[1], values=rounded_values)


def image_base64(depth: DepthMap) -> str:
    """Render a depth map as a PNG in base64."""
    return base64.b64encode(png_of(depth_picture(depth))).decode()


def png_of(image: Image.Image) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
