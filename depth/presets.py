"""How known datasets and cameras write depth: a read-only table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["metric", "inverse", "relative"]
KINDS: tuple[Kind, ...] = ("metric", "inverse", "relative")
_LARGEST_REALSENSE_UNIT_M = 0.1
_CARLA_UNITS = (2**24 - 1) / 1000  # the largest number is 1000 m


@dataclass(frozen=True)
class Preset:
    """The meaning of the numbers of a source.

    A value v is v / `units_per_metre` metres; None for values without a unit. `invalid` are holes besides 0,
    negative and non-finite values. `source` cites the documentation. `file` says what kind of file it is
    where that matters: "packed", numbers in the bytes of RGB or in rotated bits (see `formats/packed.py`), or
    "8-bit".
    """

    name: str
    units_per_metre: float | None
    source: str
    invalid: tuple[float, ...] = ()
    kind: Kind = "metric"
    file: Literal["packed", "8-bit"] | None = None


_ROWS = (
    Preset("scannet", 1000, "ScanNet .sens exports, OpenEQA scannet-v0: 16-bit PNG in mm (depth_shift 1000)"),
    Preset("tum", 5000, "TUM RGB-D benchmark, file formats: 16-bit PNG, 5000 is one metre"),
    Preset("matterport", 4000, "Matterport3D data organisation: 16-bit PNG, 0.25 mm, 0 is no reading"),
    Preset("kitti", 256, "KITTI depth devkit: 16-bit PNG, value / 256 metres, sparse"),
    Preset("realsense", 1000, "librealsense Z16 at the D400 default get_depth_scale() of 0.001 m"),
    Preset("openeqa-hm3d", 6553.5, "OpenEQA extract-frames for HM3D: depth / 10 m * 65535, wraps above 10 m"),
    Preset("habitat", 0.1, "Habitat-lab depth sensor, normalize_depth=True: float, 1.0 is max_depth 10 m"),
    Preset("nyuv2", 1000, "NYU Depth v2 as commonly exported: 16-bit PNG in mm"),
    Preset("arkitscenes", 1000, "ARKitScenes DATA: lowres_depth and highres_depth, 16-bit PNG in mm"),
    Preset("7scenes", 1000, "7-Scenes: 16-bit PNG in mm, 65535 is no reading", invalid=(65535,)),
    Preset("vkitti", 100, "Virtual KITTI: 16-bit PNG in cm, 65535 is sky", invalid=(65535,)),
    Preset(
        "sunrgbd",
        1000,
        "SUN RGB-D toolbox, read3dPoints: 16-bit PNG in mm, bits rotated left by 3",
        file="packed",
    ),
    Preset("record3d", 1, "Record3D and ARKit: float32 metres, raw with depth_shape or as EXR"),
    Preset(
        "carla",
        _CARLA_UNITS,
        "CARLA depth camera: RGB PNG, (R + 256 G + 65536 B) / (2^24 - 1) of 1000 m",
        file="packed",
    ),
    Preset("airsim", 1, "AirSim DepthPlanar and DepthPerspective: float metres, as PFM or NPY"),
    Preset(
        "airsim-vis",
        2.55,
        "AirSim DepthVis: 8-bit PNG, 0 to 100 m, 255 is 100 m and more",
        invalid=(255,),
        file="8-bit",
    ),
    Preset("tartanair", 1, "TartanAir V2: RGBA PNG, B G R A are the bytes of a float32 in m", file="packed"),
    Preset(
        "spatialbot",
        1000,
        "SpatialBot: RGB PNG in mm, R 4 (d // 1024), G 8 (d // 32), B 8 (d % 32)",
        file="packed",
    ),
    Preset(
        "float-rgba",
        None,
        "Unity EncodeFloatRGBA of linear depth, 0 to 1 of the far plane: RGBA PNG",
        kind="relative",
        file="packed",
    ),
)
PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _ROWS})
NAMES = ", ".join(PRESETS) + ", realsense:<scale>"


def find_preset(name: str) -> Preset | None:
    """Return the preset of that name, or None. Raises ValueError for an impossible `realsense:<scale>`.

    The scale of a RealSense is what `get_depth_scale()` returns: metres per unit, not units per metre.
    """
    if name.startswith("realsense:"):
        return _realsense(name.removeprefix("realsense:"))
    return PRESETS.get(name)


def _realsense(scale: str) -> Preset:
    metres_per_unit = float(scale)
    if not (math.isfinite(metres_per_unit) and 1e-7 <= metres_per_unit <= _LARGEST_REALSENSE_UNIT_M):
        raise ValueError
    base = PRESETS["realsense"]
    return Preset(base.name, 1 / metres_per_unit, base.source)


PRESET_NAMES = (*PRESETS, "realsense:<scale>", "auto")
