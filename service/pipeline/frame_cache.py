"""An LRU cache of encoded frames, so that ten questions about a frame encode it once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock

import torch
from cachetools import LRUCache
from torch import Tensor

from service.pipeline.depth_summary import Understood
from vlm import Visual

ENTRY_BYTES = 1536  # what an entry takes beside its numbers: tensor, storage, key, dictionary, dataclasses


@dataclass(frozen=True, eq=False)
class EncodedFrame:
    """Hold what the language model reads of one picture or video.

    understood: how its estimated depth was understood, one for each frame; empty where none was estimated.
    Shared between requests, so the tensors must not be modified.
    """

    visual: Visual
    understood: tuple[Understood, ...] = ()


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
    """Copy the tensors: as views they would keep the whole batch alive, neighbours included."""
    visual = frame.visual
    own = replace(
        visual,
        features=_copied(visual.features),
        deepstack=tuple(map(_copied, visual.deepstack)),
        places=None if visual.places is None else _copied(visual.places),
        patches=None if visual.patches is None else _copied(visual.patches),
    )
    return replace(frame, visual=own)


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _size(frame: EncodedFrame) -> int:
    return frame.visual.nbytes + ENTRY_BYTES
