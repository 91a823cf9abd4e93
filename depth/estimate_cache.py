"""Keep estimated depth by what an image shows, so that a frame asked about twice is estimated once.

An object its owner keeps and shares between threads; it does not know estimators from within.
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
    """Estimate depth, at most once per image while it is remembered.

    Least recently used maps go first once all maps together take more than `max_bytes`; 0 remembers nothing.
    Images asked for by several threads at the same time are estimated once too, and count as hits for the
    threads that wait. Maps are shared, so their arrays are read-only. An error is raised to everyone who
    waits for it and is not remembered.
    """

    def __init__(self, max_bytes: int) -> None:
        self._lock = Lock()
        self._maps: LRUCache[Key, DepthMap] = LRUCache(max_bytes, getsizeof=_size)
        self._running: dict[Key, Future[DepthMap]] = {}

    def estimate(self, estimator: DepthEstimator, images: Sequence[Image.Image]) -> list[DepthMap]:
        """Return one map per image like `depth.estimate.estimate`; what is not known goes in one batch."""
        return [depth for depth, _ in self.recall_or_estimate(estimator, images)]

    def recall_or_estimate(
        self, estimator: DepthEstimator, images: Sequence[Image.Image], scopes: Sequence[str] | None = None
    ) -> list[tuple[DepthMap, bool]]:
        """Do what `estimate` does and say of each map whether it was a hit.

        scopes: of each image, who may know that it was seen; maps are shared within a scope only.
        """
        named = zip(images, scopes or [""] * len(images), strict=True)
        keys = [_key(estimator, image, scope) for image, scope in named]
        futures, mine = self._look_up(keys)
        if mine:
            self._run(estimator, {key: images[at] for key, at in mine.items()}, futures)
        # Mine are done: no two threads wait for each other.
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
    """Name an image by its colours as an estimator sees them: a palette's indices would not say them."""
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
