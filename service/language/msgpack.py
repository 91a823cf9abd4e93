"""Write the few kinds of values in MessagePack that vLLM reads features in. https://msgpack.org"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

RAW = 3
"""The type of extension that vLLM gives the bytes of a tensor (vllm/v1/serial_utils.py)."""
MOST_FIXED = 128  # whole numbers below are one byte


def packed(value: object) -> bytes:
    """Write None, a truth value, number, text or tensor, or a list or map of these."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return bytes([value]) if 0 <= value < MOST_FIXED else struct.pack(">Bq", 0xD3, value)
        case float():
            return struct.pack(">Bd", 0xCB, value)
        case str():
            text = value.encode()
            return struct.pack(">BI", 0xDB, len(text)) + text
        case bytes():
            return struct.pack(">BIb", 0xC9, len(value), RAW) + value
        case Tensor():
            return packed((str(value.dtype).removeprefix("torch."), list(value.shape), _bytes(value)))
        case Mapping():
            pairs = (packed(name) + packed(each) for name, each in value.items())
            return struct.pack(">BI", 0xDF, len(value)) + b"".join(pairs)
        case Sequence():
            return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(packed, value))
        case _:
            raise TypeError(f"a {type(value).__name__} cannot be written")


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
