"""The one error of this package: code, sentence, field, limit, choices; never a library's own text."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from depth.presets import KINDS, NAMES, PRESET_NAMES

MAX_INVALID = 16
_SEND = "Send a 16-bit grey PNG or TIFF, or a two-dimensional NPY array."

REASONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "format": (
            "bad_depth",
            "This is no depth file this server reads: send PNG, TIFF or NPY (JPEG only for relative depth).",
        ),
        "npy_header": (
            "bad_depth",
            "The NPY header of the depth file was refused: send one two-dimensional array as "
            "numpy.save writes it.",
        ),
        "tiff_layout": (
            "bad_depth",
            "This TIFF is laid out in a way this server does not read: send one page of one channel, "
            "uncompressed or with Deflate, LZW or PackBits, not BigTIFF.",
        ),
        "truncated": (
            "depth_truncated",
            "The depth file ends early, lacks pixels or is damaged: send it again, whole.",
        ),
        "exr": (
            "depth_exr",
            "OpenEXR is not read as depth: save its Z channel as a float32 NPY array or a float TIFF, "
            "in metres.",
        ),
        "npz": ("depth_npz", "NPZ archives are not read: save the one depth array with numpy.save, as NPY."),
        "multi_page": ("depth_multi_page", "The depth file holds more than one frame or page: send one."),
        "dtype": (
            "depth_dtype",
            "This number format of the depth file is not read: send uint8, uint16, int32, float16, "
            "float32 or float64; a PNG "
            "has 8 or 16 bits, a TIFF 8 or 16 bits or floats.",
        ),
        "preset_eight_bit": (
            "depth_dtype",
            "Depth files of this preset have 16 bits or are float, and this one has 8: the distances "
            "were lost "
            "when it was saved. " + _SEND,
        ),
        "metric_eight_bit": (
            "depth_dtype",
            "8 bits carry no distances by themselves: send depth_scale (units per metre) with them, or "
            "depth_kind=relative, or better 16 bits.",
        ),
        "colour_mapped": (
            "depth_colour_mapped",
            "This is a colour picture of depth, and colours cannot be read back as distances. " + _SEND,
        ),
        "channels": (
            "depth_channels",
            "The depth file has several channels, or transparent pixels: send the depth channel alone.",
        ),
        "constant": (
            "depth_constant",
            "Every valid pixel of the depth map has the same value, as when 16 bits are saturated to "
            "8: there is no depth in "
            "it. Send the values as the sensor gave them.",
        ),
        "all_invalid": (
            "depth_all_invalid",
            "The depth map has no valid pixel: every value is 0, negative, NaN, infinite, 1e9 or more, or "
            "named as invalid. Send a map with readings, or none.",
        ),
        "looks_like_millimetres": (
            "depth_implausible",
            "As metres these depths are too far for a camera; they look like millimetres: "
            "send depth_scale=1000.",
        ),
        "looks_like_metres": (
            "depth_implausible",
            "In this unit every pixel is nearer than a centimetre; the values look like metres: "
            "send depth_scale=1.",
        ),
        "implausible": (
            "depth_implausible",
            "These distances are nearer than a centimetre everywhere or too far for a camera: send "
            "depth_scale (units per metre) or another depth_preset; without a unit depth_kind=relative.",
        ),
        "too_large": (
            "depth_too_large",
            "The depth map has more pixels than this server accepts, which is {limit}.",
        ),
        "tiff_row": (
            "depth_too_large",
            "One strip or tile of this depth TIFF has more than {limit} bytes: write it in smaller ones.",
        ),
        "aspect": (
            "depth_shape_mismatch",
            "Depth and image must show the same view: their aspect ratios differ by more than 2 %.",
        ),
        "preset": ("unknown_depth_preset", f"There is no such depth_preset. Known: {NAMES}."),
        "realsense_scale": (
            "unknown_depth_preset",
            "depth_preset realsense:<scale> takes what get_depth_scale() returns, in m: realsense:0.001.",
        ),
        "scale": ("bad_depth_scale", "depth_scale is units per metre and must be a finite number above 0."),
        "scale_of_relative": (
            "bad_depth_scale",
            "Relative depth has no unit: leave depth_scale out, or send depth_kind=metric or inverse.",
        ),
        "kind": ("bad_depth_kind", "depth_kind is metric, inverse or relative."),
        "invalid": (
            "bad_depth_invalid",
            "depth_invalid is a list of at most {limit} numbers, in the file's own units.",
        ),
        "unit_twice": (
            "depth_unit_twice",
            "A depth_preset already says scale and kind: send the preset alone, or scale and kind alone.",
        ),
    }
)
_FIELDS = {
    "bad_depth_scale": "depth_scale",
    "bad_depth_kind": "depth_kind",
    "bad_depth_invalid": "depth_invalid",
    "unknown_depth_preset": "depth_preset",
    "depth_unit_twice": "depth_preset",
}


_CHOICES: Mapping[str, tuple[str, ...]] = {"preset": PRESET_NAMES, "kind": KINDS}
_LIMITS = {"invalid": MAX_INVALID}


class DepthError(ValueError):
    """Refuse a depth input; `reason` is a key of REASONS, `code` is stable, `field` what is at fault.

    `limit` is the bound that was passed, `choices` are the words that are accepted, where there are any.
    """

    def __init__(self, reason: str, *, limit: int | None = None) -> None:
        self.reason = reason
        self.code, sentence = REASONS[reason]
        self.field = _FIELDS.get(self.code, "depth")
        self.limit = _LIMITS.get(reason, limit)
        self.choices = _CHOICES.get(reason)
        super().__init__(sentence.format(limit=self.limit))

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class is called with the sentence alone.
        return type(self).__new__, (type(self), *self.args), self.__dict__
