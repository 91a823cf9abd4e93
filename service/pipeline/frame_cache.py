"""Encoded frames in memory, so that ten questions about a frame encode it once; the longest unused go first.

Does not know how a frame is named or encoded.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import Lock

import torch
from torch import Tensor

from service.pipeline.depth_summary import Understood

ENTRY_BYTES = 1536  # what an entry takes beside its numbers: tensor, storage, key, dictionary, dataclasses


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """Hold what the language model reads of one frame: features [M, D], projected, image_newline included.

    `understood` is what its estimated depth was understood as, None where none was estimated. Frames are
    shared between requests: nobody writes to the features.
    """

    features: Tensor
    understood: Understood | None = None


class FrameCache:
    """Remember frames by key up to `limit_bytes` in all; any thread may call; 0 remembers nothing."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = Lock()
        self._frames: OrderedDict[bytes, EncodedFrame] = OrderedDict()
        self._bytes = self._hits = self._misses = 0

    def get(self, key: bytes) -> EncodedFrame | None:
        """Return the frame of this key, which thereby is the last to be forgotten, or None."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is None:
                self._misses += 1
                return None
            self._hits += 1
            self._frames.move_to_end(key)
            return frame

    def put(self, key: bytes, frame: EncodedFrame) -> None:
        """Keep a copy of the frame, and forget others for it; one larger than the limit is not kept."""
        if _size(frame) > self._limit:
            return
        kept = _owned(frame)
        with self._lock:
            self._forget(key)
            while self._bytes + _size(kept) > self._limit:
                self._forget(next(iter(self._frames)))
            self._frames[key] = kept
            self._bytes += _size(kept)

    def clear(self) -> None:
        """Forget all frames; the counts of hits and misses go on."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    @property
    def bytes(self) -> int:
        """Return what all frames take, never above the limit."""
        with self._lock:
            return self._bytes

    @property
    def entries(self) -> int:
        """Return how many frames are remembered."""
        with self._lock:
            return len(self._frames)

    @property
    def hits(self) -> int:
        """Return how many times a frame was found since the start."""
        with self._lock:
            return self._hits

    @property
    def misses(self) -> int:
        """Return how many times none was found since the start."""
        with self._lock:
            return self._misses

    def _forget(self, key: bytes) -> None:
        frame = self._frames.pop(key, None)
        if frame is not None:
            self._bytes -= _size(frame)


def _owned(frame: EncodedFrame) -> EncodedFrame:
    """Copy the features: as a view they would keep the whole batch alive, neighbours included."""
    features = frame.features.detach().clone(memory_format=torch.contiguous_format)
    return replace(frame, features=features)


def _size(frame: EncodedFrame) -> int:
    return frame.features.nbytes + ENTRY_BYTES
