"""Name an encoded frame by everything that its encoding depends on, so that no two can share a name.

Every value is written with its type and length in front and could be read back; SHA-256 is never cut. What
goes in is what is computed, not how it was asked for.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from depth.estimate import DepthEstimator
from tosa import MergePlan
from vlm import ImageSettings, Layout

SCHEMA = "tosa-vqa frame 3"  # a new number whenever the same fields begin to mean something else
STRIP_PX = 2**18


class DepthKind(StrEnum):
    """Name what spatial tokens are made of."""

    CLIENT = "client"
    ESTIMATE = "estimate"
    POSITION = "position"


@dataclass(frozen=True)
class DepthIdentity:
    """Name the depth that spatial tokens are made of.

    digest: the `spatial_digest` of the client's depth, the `estimate_digest` of an estimator that is loaded;
    None for row and column alone, and for an estimator that is loaded later.
    """

    kind: DepthKind
    digest: bytes | None = None


def frame_key(
    images: Sequence[Image.Image | bytes],
    *,
    layout: Layout,
    plan: MergePlan,
    vlm_id: str,
    revision: str,
    processing: ImageSettings | str,
    dtype: torch.dtype,
    device_type: str,
    depth: DepthIdentity | None,
    tenant: str | None,
    follows: bool = False,
) -> bytes:
    """Return the 32 bytes that name the encoding of one picture, or of the frames of one video.

    images: RGB and upright, as `decode_image` leaves them, or their `pixels_digest`. processing: how pixels
    are made of them for a view. depth: what spatial tokens are made of; not looked at where the plan needs
    none. tenant: the name of the API key, None where no client has one. follows: the encoding says where each
    patch is. Raises ValueError for an image that is not RGB, and if depth is missing.
    """
    if plan.needs_spatial and depth is None:
        raise ValueError("a plan that needs spatial tokens needs to say what they are made of")
    content = (
        written(SCHEMA),
        *(written(("pixels", each if isinstance(each, bytes) else pixels_digest(each))) for each in images),
        _written_layout(layout),
        _written_plan(plan),
        written(("depth", depth if plan.needs_spatial else None)),
        _written_model(vlm_id, revision, processing, dtype, device_type),
        written(("tenant", tenant)),
        *((written("follows"),) if follows else ()),
    )
    return hashlib.sha256(_block(b"l", b"".join(content))).digest()


def pixels_digest(image: Image.Image) -> bytes:
    """Return the 32 bytes that name the pixels of an RGB image, for several keys of the same image.

    Raises ValueError for other modes, whose bytes alone do not say the colours.
    """
    if image.mode != "RGB":
        raise ValueError(f"a frame is named by its RGB pixels, not by those of mode {image.mode}")
    return _digest_of_block(
        ["pixels", image.mode, image.size], 3 * image.width * image.height, _strips(image)
    )


def spatial_digest(spatial: Tensor) -> bytes:
    """Return the 32 bytes that name spatial tokens of any shape, dtype and device."""
    flat = spatial.detach().cpu().contiguous().flatten().view(torch.uint8)
    return _digest_of_block(
        ["spatial", str(spatial.dtype), tuple(spatial.shape)], len(flat), [flat.numpy().data]
    )


def estimate_digest(estimator: DepthEstimator) -> bytes:
    """Return the 32 bytes that name the depth this estimator sees in an image, which is named elsewhere."""
    named = ["estimate", estimator.id, estimator.revision, estimator.size_px]
    return hashlib.sha256(written(named)).digest()


def written(value: Any) -> bytes:
    """Write a value so that it can be read back: a letter for its type, eight bytes of length, the content.

    None, booleans, whole numbers, floats, texts, bytes, and sequences and dataclasses of these; TypeError for
    others.
    """
    match value:
        case None:
            return _block(b"n", b"")
        case bool():
            return _block(b"t" if value else b"f", b"")
        case int():
            return _block(b"i", str(int(value)).encode())
        case float():
            return _block(b"d", struct.pack(">d", value))
        case str():
            return _block(b"s", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _block(b"b", value)
        case tuple() | list():
            return _block(b"l", b"".join(map(written, value)))
    if is_dataclass(value) and not isinstance(value, type):
        return _block(b"o", written(type(value).__name__) + b"".join(map(written, _named_fields(value))))
    raise TypeError(f"{type(value).__name__} has no place in a frame key")


@lru_cache(maxsize=1024)
def _written_plan(plan: MergePlan) -> bytes:
    kernel = plan.spec.spatial_kernel if plan.needs_spatial else None
    return written(("plan", _what_is_computed(plan))) + written(("spatial_kernel", kernel))


@lru_cache(maxsize=1024)
def _written_layout(layout: Layout) -> bytes:
    return written(("layout", layout))


@lru_cache(maxsize=16)
def _written_model(
    vlm_id: str, revision: str, processing: ImageSettings | str, dtype: torch.dtype, device_type: str
) -> bytes:
    values = {
        "vlm_id": vlm_id,
        "revision": revision,
        "processing": processing,
        "dtype": str(dtype),
        "device_type": device_type,
    }
    return b"".join(map(written, values.items()))


def _what_is_computed(plan: MergePlan) -> tuple[tuple[str, Any], ...]:
    """Take all of a plan but the words of the request; new fields of a plan come in by themselves."""
    return tuple((name, value) for name, value in _named_fields(plan) if name != "spec")


def _named_fields(value: Any) -> Iterable[tuple[str, Any]]:
    return ((field.name, getattr(value, field.name)) for field in fields(value))


def _strips(image: Image.Image) -> Iterator[bytes]:
    """Cut an image into bands of whole rows: a copy of all its bytes takes longer, and their memory again."""
    rows = max(1, STRIP_PX // image.width)
    if rows >= image.height:
        yield image.tobytes()
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))).tobytes()


def _digest_of_block(head: list[Any], length: int, parts: Iterable[bytes | memoryview]) -> bytes:
    """Hash the head, then one long text of bytes that comes in parts."""
    digest = hashlib.sha256(written(head))
    digest.update(_block_head(b"b", length))
    for part in parts:
        digest.update(part)
    return digest.digest()


def _block(letter: bytes, content: bytes) -> bytes:
    return _block_head(letter, len(content)) + content


def _block_head(letter: bytes, length: int) -> bytes:
    return letter + struct.pack(">Q", length)
