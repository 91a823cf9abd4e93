"""How known datasets and cameras write depth: a read-only table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["metric", "inverse", "relative"]
KINDS: tuple[Kind, ...] = ("metric", "inverse", "relative")
_LARGEST_REALSENSE_UNIT_M = 0.1


@dataclass(frozen=True)
class Preset:
    """The meaning of the numbers of a source.

    A value v is v / `units_per_metre` metres. `invalid` are holes besides 0, negative and non-finite values.
    `source` cites the documentation.
    """

    name: str
    units_per_metre: float
    source: str
    invalid: tuple[float, ...] = ()
    kind: Kind = "metric"


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
