"""What a reader of a depth file should know about it: doubts and decisions, each with a stable code."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Note:
    """Hold a doubt about a depth file that is no reason to refuse it, or a decision about its numbers."""

    code: str
    sentence: str


NOTES: Mapping[str, str] = MappingProxyType(
    {
        "lossy": "JPEG is lossy: it smears the edges of things and of holes.",
        "few_valid": "Less than a tenth of the pixels are valid.",
        "few_values": "The map has very few different values, as when metres are saved as integers: send the "
        "numbers before they were rounded.",
        "saturated": "Many pixels hold the largest number that this type has: unless that is sky, far "
        "distances were clipped when the map was saved.",
        "zeros_are_holes": "0 was taken as no reading: zeros are many, and lie beside all kinds of values. "
        "Name the holes in depth_invalid to decide yourself.",
        "zeros_are_depth": "0 was taken as one end of the order, because it lies beside similar values. If "
        "it means no reading, send depth_invalid=0.",
        "maybe_holes_65535": "The largest number is 65535, and no other is near it: if it means no reading, "
        "send depth_invalid=65535 or the depth_preset.",
        "maybe_normalised": "The numbers fill the range of their type or end at 1, as normalised depth does: "
        "if so, send depth_preset (habitat, openeqa-hm3d) or depth_kind (inverse, relative).",
        "maybe_zbuffer": "No number is above 1 and most are near it, as in the z-buffer of a renderer: turn "
        "it into metres with near and far, or send depth_kind=relative.",
        "maybe_inverse": "The numbers seem to fall with distance: straight lines in the scene are straight "
        "in them, as in inverse depth. If so, send depth_kind=inverse; of a ROS compressedDepth message send "
        "all bytes, with the header.",
        "maybe_unaligned": "Edges of the depth do not lie on edges of the image: the two may be turned, "
        "mirrored, shifted or of different lenses. Align the depth to the image, which is turned upright by "
        "its EXIF orientation.",
        "not_used": "The depth file was read and checked, but guided nothing: the method uses no depth, or "
        "the request asked for an estimate, or for none.",
    }
)


def note(code: str) -> Note:
    """Return the note with its sentence."""
    return Note(code, NOTES[code])
