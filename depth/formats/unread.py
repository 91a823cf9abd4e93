"""Formats that are recognised and not read: the error names the format and what to send instead."""

from collections.abc import Callable

from depth.formats.ros import is_rvl


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(signatures)


UNREAD: tuple[tuple[str, str, Callable[[bytes], bool]], ...] = (
    ("hdf5", "HDF5", _starts(b"\x89HDF\r\n\x1a\n")),
    ("mat", "MATLAB", _starts(b"MATLAB 5", b"MATLAB 7")),
    ("lzfse", "LZFSE, as `.depth` of Record3D", _starts(b"bvx2", b"bvx1", b"bvxn", b"bvx-")),
    ("rvl", "ROS compressedDepth in RVL", is_rvl),
)
"""The reason of the error, the name of the format, and how a file is recognised."""
