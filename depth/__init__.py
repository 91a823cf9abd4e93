"""Scene depth: decode depth files, and reduce a map to one small integer per patch."""

from importlib.util import find_spec

_NEEDED = ("cachetools", "isal", "numpy", "PIL", "simplejpeg")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:  # said once and here, before something deep inside fails
    raise ModuleNotFoundError(
        f"depth needs {', '.join(_missing)}: pip install 'tosa-vqa[depth]'", name=_missing[0]
    )

from depth.alignment import note_alignment
from depth.codes import check_alignment, depth_codes, patch_means
from depth.decode import read_depth
from depth.depth_format import Assumption
from depth.depth_map import DepthMap, masked_depth, metric_depth
from depth.errors import DepthError
from depth.notes import NOTES, Note
from depth.presets import KINDS, PRESETS
from depth.render import depth_picture
from depth.report import DepthReport

__all__ = [
    "KINDS",
    "NOTES",
    "PRESETS",
    "Assumption",
    "DepthError",
    "DepthMap",
    "DepthReport",
    "Note",
    "check_alignment",
    "depth_codes",
    "depth_picture",
    "masked_depth",
    "metric_depth",
    "note_alignment",
    "patch_means",
    "read_depth",
]
