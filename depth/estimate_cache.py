"""Cache estimated depth by the pixels of an image, so that a frame asked about twice is estimated once.

A cache may be shared between threads.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock

from cachetools import LRUCache
from PIL import Image

from depth.depth_map import DepthMap
from depth.estimate import DepthEstimator, estimate

Key = tuple[str, str, int, str, bytes]


class EstimateCache:
    """Estimate depth, at most once per image while it is cached.

    Least recently used maps go first once all maps together take more than `max_bytes`; 0 disables the cache.
    Images asked for by several threads at the same time are estimated once too, and count as hits for the
    threads that wait. Maps are shared, so their arrays are read-only. An error is raised in every
    thread that waits for it, and is not cached.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = Lock()
        self._maps: LRUCache[Key, DepthMap] = LRUCache(max_bytes, getsizeof=_size)
        self._running: dict[Key, Future[DepthMap]] = {}

    def estimate(self, estimator: DepthEstimator, images: Sequence[Image.Image]) -> list[DepthMap]:
        """Return one map per image like `depth.estimate.estimate`; misses are estimated in one batch."""
        return [depth for depth, _ in self.recall_or_estimate(estimator, images)]

    def recall_or_estimate(
        self, estimator: DepthEstimator, images: Sequence[Image.Image], scopes: Sequence[str] | None = None
    ) -> list[tuple[DepthMap, bool]]:
        """Do the same as `estimate`, and return for each map whether it was a hit.

        scopes: the scope of each image; maps are shared only within a scope.
        """
        named = zip(images, scopes or [""] * len(images), strict=True)
        keys = [_key(estimator, image, scope) for image, scope in named]
        futures, mine = self._look_up(keys)
        if mine:
            self._run(estimator, {key: images[at] for key, at in mine.items()}, futures)
        # This thread's estimates are done, so no two threads wait for each other.
        return [(futures[key].result(), mine.get(key) != at) for at, key in enumerate(keys)]

    def _look_up(self, keys: Sequence[Key]) -> tuple[dict[Key, Future[DepthMap]], dict[Key, int]]:
        """Return a future per key, and the place of each key that this thread has to estimate itself."""
        futures: dict[Key, Future[DepthMap]] = {}
        mine: dict[Key, int] = {}
        with self._lock:
            for at, key in enumerate(keys):
                if key in self._maps:
                    futures[key] = _done(self._maps[key])
                elif key in self._running:
                    futures[key] = self._running[key]
                else:
                    futures[key] = self._running[key] = Future()
                    mine[key] = at
        return futures, mine

    def _run(
        self,
        estimator: DepthEstimator,
        images: dict[Key, Image.Image],
        futures: dict[Key, Future[DepthMap]],
    ) -> None:
        try:
            maps = [_frozen(depth) for depth in estimate(estimator, list(images.values()))]
        except BaseException as error:
            with self._lock:
                for key in images:
                    del self._running[key]
            for key in images:
                futures[key].set_exception(error)
            raise
        with self._lock:
            for key, depth in zip(images, maps, strict=True):
                del self._running[key]
                if _size(depth) <= self._maps.maxsize:
                    self._maps[key] = depth
        for key, depth in zip(images, maps, strict=True):
            futures[key].set_result(depth)


def _key(estimator: DepthEstimator, image: Image.Image, scope: str) -> Key:
    """Hash an image by its RGB values, as an estimator sees them; a palette's indices would not do."""
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.mode} {rgb.width} {rgb.height} ".encode())
    digest.update(rgb.tobytes())
    return estimator.id, estimator.revision, estimator.size_px, scope, digest.digest()


def _done(depth: DepthMap) -> Future[DepthMap]:
    future: Future[DepthMap] = Future()
    future.set_result(depth)
    return future


def _frozen(depth: DepthMap) -> DepthMap:
    depth.values.setflags(write=False)
    depth.valid.setflags(write=False)
    return depth


def _size(depth: DepthMap) -> int:
    return depth.values.nbytes + depth.valid.nbytes
