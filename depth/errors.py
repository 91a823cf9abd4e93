"""The one error of this package: a code, the field at fault, a fixed sentence; never a library's own text."""

from collections.abc import Mapping
from types import MappingProxyType

REASONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "format": (
            "bad_depth",
            "Depth must be a 16-bit grey PNG (millimetres) or a float NPY array (metres).",
        ),
        "eight_bit": (
            "bad_depth",
            "An 8-bit or colour PNG only pictures depth: send 16-bit grey (mm) or float NPY (metres).",
        ),
        "truncated": ("bad_depth", "The depth file ends early or is damaged."),
        "npy_header": (
            "bad_depth",
            "The NPY header was refused: send a two-dimensional float16, float32 or float64 array in metres.",
        ),
        "animated": ("bad_depth", "The depth PNG holds more than one frame; send one."),
        "all_invalid": (
            "bad_depth",
            "The depth map has no valid pixel: every value is 0, negative, NaN or infinite.",
        ),
        "scale": ("bad_depth_scale", "depth_scale is units per metre and must be a finite number above 0."),
        "too_large": ("depth_too_large", "The depth map has more pixels than this server accepts."),
        "aspect": (
            "depth_shape_mismatch",
            "Depth and image must show the same view: their aspect ratios differ by more than 2 %.",
        ),
    }
)


class DepthError(ValueError):
    """Refuse a depth input; `reason` is a key of REASONS, `code` groups reasons for a caller."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.code, message = REASONS[reason]
        self.field = "depth_scale" if reason == "scale" else "depth"
        super().__init__(message)
