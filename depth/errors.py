"""The one error of this package: code, sentence, field, limit, choices; never a library's own text."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from depth.conventions import CONVENTIONS
from depth.geometry_reasons import GEOMETRY_FIELDS, GEOMETRY_LIMITS, GEOMETRY_REASONS
from depth.presets import KINDS, NAMES, PRESET_NAMES

MAX_INVALID = 16
_SEND = "Send a 16-bit grey PNG or TIFF, or a two-dimensional NPY array."

REASONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "format": (
            "bad_depth",
            "This is no depth file this server reads: send PNG, TIFF, NPY or another of the formats that the "
            "documentation lists; numbers without a header, such as a .depth file, need depth_shape=WxH.",
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
        "pfm_header": (
            "bad_depth",
            "The header of this PFM was refused: it is Pf, width, height and the scale whose sign is the "
            "byte order.",
        ),
        "pgm_header": (
            "bad_depth",
            "The header of this PGM was refused: it is P5, width, height and the largest number.",
        ),
        "pgm_plain": (
            "bad_depth",
            "This PGM holds its numbers as text (P2): write it in binary (P5), or as 16-bit PNG.",
        ),
        "raw_size": (
            "bad_depth",
            "The file does not fit depth_shape: W x H numbers of 1, 2, 4 or 8 bytes are expected, without a "
            "header.",
        ),
        "hdf5": (
            "bad_depth",
            "This is an HDF5 file, which is not read: take the one depth map out with h5py, and save it with "
            "numpy.save, as NPY.",
        ),
        "mat": (
            "bad_depth",
            "This is a MATLAB file, which is not read: take the one depth map out with scipy.io.loadmat "
            "(h5py for version 7.3), and save it with numpy.save, as NPY.",
        ),
        "lzfse": (
            "bad_depth",
            "This is compressed with LZFSE, as the .depth files of Record3D are: decompress it, and send the "
            "float32 values with depth_preset=record3d and depth_shape=WxH.",
        ),
        "rvl": (
            "bad_depth",
            "This seems to be a ROS compressedDepth message in RVL, which is not read: publish it as png, or "
            "decode it and send 16-bit PNG.",
        ),
        "exr_missing": (
            "depth_exr",
            "OpenEXR is not read by this server: its extra tosa-vqa[exr] is not installed. Save the depth "
            "channel (Z, or V from Blender) as float32 NPY or TIFF, in metres.",
        ),
        "exr_layout": (
            "depth_exr",
            "This OpenEXR file is laid out in a way this server does not read: send one part of scan lines "
            "or tiles that is not deep, whose channels are not subsampled.",
        ),
        "exr_channel": (
            "depth_exr",
            "Which channel of this OpenEXR file is depth? Name it in depth_key (Z, V from Blender, or with "
            "its layer: View Layer.Depth.Z).",
        ),
        "npz_layout": (
            "depth_npz",
            "This archive was refused: send an NPZ as numpy.savez or savez_compressed writes it, with at "
            "most 64 arrays, or one array with numpy.save, as NPY.",
        ),
        "npz_keys": (
            "depth_npz",
            "This NPZ holds several arrays: name the one with the depth in depth_key, or save it alone.",
        ),
        "npz_key": ("depth_npz", "This NPZ holds no array of the name that depth_key gives."),
        "multi_page": ("depth_multi_page", "The depth file holds more than one frame or page: send one."),
        "dtype": (
            "depth_dtype",
            "This number format of the depth file is not read: send uint8, integers of 16 to 64 bits (not "
            "uint64) or floats; a PNG has 8 or 16 bits, a TIFF 8 or 16 bits or floats.",
        ),
        "preset_sixteen_bit": (
            "depth_dtype",
            "Depth files of this preset have 16-bit integers: send the PNG as the data set has it.",
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
            "This is a colour picture of depth, and colours of a palette cannot be read back as distances. "
            + _SEND,
        ),
        "packed": (
            "depth_packed",
            "This looks like depth packed into the bytes of RGB: send the depth_preset that says how; "
            "{choices} would give a smooth map.",
        ),
        "packed_container": (
            "depth_packed",
            "Depth of this preset is packed into the bytes of an RGB or RGBA image: send the PNG of 8 bits "
            "as it was written, without loss.",
        ),
        "saturated": (
            "depth_saturated",
            "Nearly all pixels hold the largest number of 8 bits, or the largest and 0: the distances were "
            "clipped when the map was saved. " + _SEND,
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
        "looks_like_centimetres": (
            "depth_implausible",
            "As metres these depths are too far for a camera; they look like centimetres: "
            "send depth_scale=100.",
        ),
        "looks_like_either": (
            "depth_implausible",
            "As metres these depths are too far for a camera; they look like centimetres or millimetres: "
            "send depth_scale=100 or depth_scale=1000.",
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
            "Depth and image must show the same view: their aspect ratios differ by more than 2 %. If the "
            "image was turned upright by its EXIF orientation, turn the depth, too.",
        ),
        "preset": ("unknown_depth_preset", f"No such depth_preset. Known: {NAMES}."),
        "realsense_scale": (
            "unknown_depth_preset",
            "depth_preset realsense:<scale> takes what get_depth_scale() returns, in m: realsense:0.001.",
        ),
        "scale": ("bad_depth_scale", "depth_scale is units per metre and must be a finite number above 0."),
        "scale_of_relative": (
            "bad_depth_scale",
            "Relative depth has no unit: leave depth_scale out, or send depth_kind=metric or inverse.",
        ),
        "shape": ("bad_depth_shape", "depth_shape is width x height in pixels, such as 640x480."),
        "shape_of_file": (
            "bad_depth_shape",
            "depth_shape is for numbers without a header, and this file has one: leave it out.",
        ),
        "key_of_one": (
            "bad_depth_key",
            "depth_key names an array of an NPZ or a channel of an OpenEXR file: leave it out for this file.",
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
        **GEOMETRY_REASONS,
    }
)
_FIELDS = {
    "bad_depth_scale": "depth_scale",
    "bad_depth_kind": "depth_kind",
    "bad_depth_invalid": "depth_invalid",
    "unknown_depth_preset": "depth_preset",
    "depth_unit_twice": "depth_preset",
    "bad_depth_shape": "depth_shape",
    "bad_depth_key": "depth_key",
    **GEOMETRY_FIELDS,
}


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "preset": PRESET_NAMES,
    "kind": KINDS,
    "convention": tuple(CONVENTIONS),
    "convention_missing": tuple(CONVENTIONS),
}
_LIMITS = {"invalid": MAX_INVALID, **GEOMETRY_LIMITS}


class DepthError(ValueError):
    """Refuse a depth input; `reason` is a key of REASONS, `code` is stable, `field` what is at fault.

    `limit` is the bound that was passed, `choices` are the words that are accepted, where there are any.
    """

    def __init__(
        self, reason: str, *, limit: int | None = None, choices: tuple[str, ...] | None = None
    ) -> None:
        self.reason = reason
        self.code, sentence = REASONS[reason]
        self.field = _FIELDS.get(self.code, "depth")
        self.limit = _LIMITS.get(reason, limit)
        self.choices = _CHOICES.get(reason, choices)
        super().__init__(sentence.format(limit=self.limit, choices=" or ".join(choices or ())))

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class is called with the sentence alone.
        return type(self).__new__, (type(self), *self.args), self.__dict__
