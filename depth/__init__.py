"""Scene depth: decode what a client sends and reduce it to one small integer per patch.

It knows files and pixels; it knows neither models nor HTTP.
"""

from depth.codes import check_alignment, depth_codes
from depth.decode import decode_depth
from depth.depth_map import DepthMap, metric_depth
from depth.errors import DepthError

__all__ = ["DepthError", "DepthMap", "check_alignment", "decode_depth", "depth_codes", "metric_depth"]
