"""An LRU cache of encoded frames, so that ten questions about a frame encode it once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

import torch
from cachetools import LRUCache
from torch import Tensor

from service.pipeline.depth_summary import Understood

ENTRY_BYTES = 1536  # what an entry takes beside its numbers: tensor, storage, key, dictionary, dataclasses


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """Hold what the language model reads of one frame: features [M, D], projected, image_newline included.

    `understood` is what its estimated depth was understood as, None where none was estimated. Frames are
    shared between requests, so the features must not be modified.
    """

    features: Tensor
    understood: Understood | None = None


class FrameCache:
    """Remember frames by key up to `limit_bytes` in all; any thread may call; 0 remembers nothing."""

    def __init__(self, limit_bytes: int) -> None:
        self._lock = Lock()
        self._frames: LRUCache[bytes, EncodedFrame] = LRUCache(limit_bytes, getsizeof=_size)

    def get(self, key: bytes) -> EncodedFrame | None:
        """Return the frame of this key and mark it as most recently used, or return None."""
        with self._lock:
            return self._frames.get(key)

    def put(self, key: bytes, frame: EncodedFrame) -> None:
        """Store a copy of the frame and evict others for it; a frame larger than the limit is not stored."""
        if _size(frame) > self._frames.maxsize:
            return
        kept = _owned(frame)
        with self._lock:
            self._frames.pop(key, None)  # else the old one counts while room is made for the new one
            self._frames[key] = kept

    @property
    def bytes(self) -> int:
        """Return what all frames take, never above the limit."""
        with self._lock:
            return int(self._frames.currsize)

    @property
    def entries(self) -> int:
        """Return the number of cached frames."""
        with self._lock:
            return len(self._frames)


def _owned(frame: EncodedFrame) -> EncodedFrame:
    """Copy the features: as a view they would keep the whole batch alive, neighbours included."""
    features = frame.features.detach().clone(memory_format=torch.contiguous_format)
    return replace(frame, features=features)


def _size(frame: EncodedFrame) -> int:
    return frame.features.nbytes + ENTRY_BYTES
