"""The cache of estimated depth: what counts as the same image, what is forgotten, and threads that meet."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

import depth.estimate_cache
from depth import DepthMap
from depth.estimate import EstimatorError
from depth.estimate_cache import EstimateCache
from tests.depth.estimators import Fake, sample_images
from tests.loopback import PATIENCE_S

MAP_BYTES = 16 * (4 + 1)  # values and mask of a 4 x 4 map


def grey(image: Image.Image) -> Any:
    return np.full((4, 4), np.array(image.convert("RGB")).mean())


def shades(*values: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 6), (value, value, value)) for value in values]


def read(maps: list[Any]) -> list[float]:
    return [float(depth.values[0, 0]) for depth in maps]


def hits(cache: EstimateCache, fake: Fake, *values: int) -> list[bool]:
    return [was_known for _, was_known in cache.recall_or_estimate(fake, shades(*values))]


def test_an_image_is_estimated_once():
    cache, fake = EstimateCache(1 << 20), Fake(grey)
    first = cache.estimate(fake, shades(1, 2))
    again = cache.estimate(fake, shades(2, 3, 1))
    assert read(first) == [1, 2]
    assert read(again) == [2, 3, 1]
    assert fake.asked == [2, 1]
    assert hits(cache, fake, 1, 2, 3) == [True] * 3


def test_an_image_sent_twice_at_once_is_estimated_once():
    cache, fake = EstimateCache(1 << 20), Fake(grey)
    assert read(cache.estimate(fake, shades(7, 7, 9, 7))) == [7, 7, 9, 7]
    assert fake.asked == [2]
    fresh = EstimateCache(1 << 20)
    assert hits(fresh, fake, 7, 7, 9, 7) == [False, True, False, True]


def test_what_an_image_shows_decides_not_the_object_or_its_mode():
    cache, fake = EstimateCache(1 << 20), Fake(grey)
    image = sample_images(1)[0]
    with_alpha = image.copy()
    with_alpha.putalpha(10)
    cache.estimate(fake, [image])
    cache.estimate(fake, [image.copy(), with_alpha])
    assert fake.asked == [1]


def different(first: Image.Image, second: Image.Image) -> bool:
    fake = Fake(grey)
    EstimateCache(1 << 20).estimate(fake, [first, second])
    return fake.asked == [2]


def test_one_pixel_makes_another_image():
    changed = sample_images(1)[0]
    changed.putpixel((3, 2), (0, 0, 0))
    assert different(sample_images(1)[0], changed)


def test_the_same_bytes_in_another_shape_are_another_image():
    assert different(Image.new("RGB", (6, 8)), Image.new("RGB", (8, 6)))


def test_the_same_indices_of_another_palette_are_another_image():
    first, second = Image.new("P", (4, 4), 1), Image.new("P", (4, 4), 1)
    first.putpalette([0, 0, 0, 255, 0, 0])
    second.putpalette([0, 0, 0, 0, 0, 255])
    assert first.tobytes() == second.tobytes()
    assert different(first, second)


@pytest.mark.parametrize("change", [{"id": "other"}, {"revision": "2"}, {"size_px": 8}])
def test_another_estimator_is_asked_itself(change: dict[str, Any]):
    cache, fake, other = EstimateCache(1 << 20), Fake(grey), Fake(lambda image: np.zeros((4, 4)))
    vars(other).update(change)
    assert read(cache.estimate(fake, shades(5))) == [5]
    assert read(cache.estimate(other, shades(5))) == [0]


def test_the_longest_unused_goes_first():
    cache, fake = EstimateCache(2 * MAP_BYTES), Fake(grey)
    cache.estimate(fake, shades(1, 2))
    cache.estimate(fake, shades(1))
    cache.estimate(fake, shades(3))
    assert hits(cache, fake, 1, 3) == [True, True]
    assert hits(cache, fake, 2) == [False]


def test_an_image_found_again_counts_as_used():
    cache, fake = EstimateCache(2 * MAP_BYTES), Fake(grey)
    cache.estimate(fake, shades(1, 2))
    assert hits(cache, fake, 1) == [True]
    cache.estimate(fake, shades(3))
    assert hits(cache, fake, 1) == [True]


@pytest.mark.parametrize(("max_bytes", "kept"), [(3 * MAP_BYTES - 1, 2), (3 * MAP_BYTES, 3)])
def test_the_limit_is_in_bytes(max_bytes: int, kept: int):
    cache, fake = EstimateCache(max_bytes), Fake(grey)
    cache.estimate(fake, shades(1, 2, 3, 4))
    found = [hits(cache, fake, value)[0] for value in (4, 3, 2, 1)[:kept]]
    assert found == [True] * kept
    assert hits(cache, fake, 4 - kept) == [False]


@pytest.mark.parametrize("max_bytes", [0, MAP_BYTES - 1])
def test_what_is_too_large_is_answered_and_not_kept(max_bytes: int):
    cache, fake = EstimateCache(max_bytes), Fake(grey)
    assert read(cache.estimate(fake, shades(4))) == [4]
    assert read(cache.estimate(fake, shades(4))) == [4]
    assert fake.asked == [1, 1]


def test_what_is_too_large_pushes_nothing_else_out():
    cache = EstimateCache(2 * MAP_BYTES)
    cache.estimate(Fake(grey), shades(1, 2))
    cache.estimate(Fake(lambda image: np.zeros((8, 8))), shades(3))
    assert hits(cache, Fake(grey), 1, 2) == [True, True]


def test_a_map_cannot_be_changed_by_one_of_its_readers():
    (depth,) = EstimateCache(1 << 20).estimate(Fake(grey), shades(4))
    with pytest.raises(ValueError, match="read-only"):
        depth.values[0, 0] = 9
    with pytest.raises(ValueError, match="read-only"):
        depth.valid[0, 0] = False


class Gate:
    """An answer that waits until it is let go, so that other threads meet it half-way."""

    def __init__(self, answer: Any = grey) -> None:
        self.started, self.go, self.answer = threading.Event(), threading.Event(), answer

    def __call__(self, image: Image.Image) -> Any:
        self.started.set()
        assert self.go.wait(PATIENCE_S)
        return self.answer(image)


class Crowd:
    """Count the threads that have looked up what they need, and wait for a map that another one makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._waiting = threading.Semaphore(0)
        crowd = self

        class Counted(Future[DepthMap]):
            def result(self, timeout: float | None = None) -> DepthMap:
                if not self.done():
                    crowd._waiting.release()
                return super().result(timeout)

        monkeypatch.setattr(depth.estimate_cache, "Future", Counted)

    def wait_for(self, threads: int) -> None:
        for _ in range(threads):
            assert self._waiting.acquire(timeout=PATIENCE_S)


def test_two_threads_that_ask_for_one_image_compute_once(monkeypatch: pytest.MonkeyPatch):
    cache, gate, crowd = EstimateCache(1 << 20), Gate(), Crowd(monkeypatch)
    fake = Fake(gate)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(cache.estimate, fake, shades(6))
        assert gate.started.wait(PATIENCE_S)
        others = [threads.submit(cache.estimate, fake, shades(6)) for _ in range(7)]
        crowd.wait_for(7)
        assert not first.done()
        gate.go.set()
        assert [read(one.result(PATIENCE_S)) for one in (first, *others)] == [[6]] * 8
    assert fake.asked == [1]


def test_threads_that_need_each_others_images_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch):
    cache, first_gate, crowd = EstimateCache(1 << 20), Gate(), Crowd(monkeypatch)
    first_fake, second_fake = Fake(first_gate), Fake(grey)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.estimate, first_fake, shades(1, 2))
        assert first_gate.started.wait(PATIENCE_S)
        second = threads.submit(cache.estimate, second_fake, shades(3, 1))
        crowd.wait_for(1)
        assert not first.done()
        first_gate.go.set()
        assert read(first.result(PATIENCE_S)) == [1, 2]
        assert read(second.result(PATIENCE_S)) == [3, 1]


def test_an_error_reaches_everyone_who_waits_and_is_not_remembered(monkeypatch: pytest.MonkeyPatch):
    cache, crowd = EstimateCache(1 << 20), Crowd(monkeypatch)
    gate = Gate(lambda image: np.full((4, 4), np.nan))
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.estimate, Fake(gate), shades(6))
        assert gate.started.wait(PATIENCE_S)
        second = threads.submit(cache.estimate, Fake(gate), shades(6))
        crowd.wait_for(1)
        assert not first.done()
        gate.go.set()
        for one in (first, second):
            with pytest.raises(EstimatorError, match="not finite"):
                one.result(PATIENCE_S)
    assert read(cache.estimate(Fake(grey), shades(6))) == [6]


def test_many_threads_and_few_images_count_exactly():
    cache, fake = EstimateCache(1 << 20), Fake(grey)
    orders = np.random.default_rng(0).integers(0, 8, (64, 5)).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda order: cache.recall_or_estimate(fake, shades(*order)), orders)
        answers = list(found)
    assert [read([made for made, _ in answer]) for answer in answers] == orders
    assert sum(fake.asked) == 8
    assert sum(was_known for answer in answers for _, was_known in answer) == 64 * 5 - 8
