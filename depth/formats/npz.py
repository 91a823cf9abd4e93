"""Read one array of an NPZ archive: the list of members within bounds, then one member by its own header."""

import io
import struct
import zipfile
import zlib

import numpy as np
from numpy.typing import NDArray

from depth.errors import DepthError
from depth.formats.npy import LONGEST_HEAD, array_from, read_npy_header

SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
MAX_KEYS = 64
_MAX_DIRECTORY_BYTES = 1 << 14
_END = struct.Struct("<4s4H2IH")  # of the central directory
_MOST_COMMENT_BYTES = 1 << 16
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_LONGEST_KEY = 64


def read_npz(data: bytes, max_pixels: int, key: str | None = None) -> NDArray[np.generic]:
    """Return the [H, W] array called `key`, or the only array there is. Raises DepthError.

    Nothing is inflated beyond what the header of the array promises, and that is bounded first.
    """
    _check_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = _choose(archive, key)
            with archive.open(member) as file:
                head = file.read(LONGEST_HEAD)
                layout = read_npy_header(head, max_pixels)
                rest = file.read(max(layout.file_bytes - len(head), 0) + 1)  # one more: the end, and its sum
    except DepthError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
        raise DepthError("truncated") from None
    return array_from(head + rest, layout)


def _check_directory(data: bytes) -> None:
    """Bound the list of members before a library reads it. Archives that need 64-bit lists are refused."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - _MOST_COMMENT_BYTES))
    if at < 0 or len(data) - at < _END.size:
        raise DepthError("truncated")
    _, _, _, _, members, length, _, _ = _END.unpack_from(data, at)
    if (
        members > MAX_KEYS
        or length > _MAX_DIRECTORY_BYTES
        or data[max(0, at - 20) : at].startswith(b"PK\x06\x07")
    ):
        raise DepthError("npz_layout")


def _choose(archive: zipfile.ZipFile, key: str | None) -> zipfile.ZipInfo:
    members = {
        info.filename.removesuffix(".npy"): info
        for info in archive.infolist()
        if info.filename.endswith(".npy")
    }
    if not members:
        raise DepthError("npz_layout")
    if key is None and len(members) > 1:
        raise DepthError("npz_keys", choices=_plain(members))
    member = next(iter(members.values())) if key is None else members.get(key)
    if member is None:
        raise DepthError("npz_key", choices=_plain(members))
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
        raise DepthError("npz_layout")
    return member


def _plain(names: dict[str, zipfile.ZipInfo]) -> tuple[str, ...]:
    """Return the names that an error may repeat."""
    return tuple(
        name for name in names if len(name) <= _LONGEST_KEY and name.isascii() and name.isidentifier()
    )
