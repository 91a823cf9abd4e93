"""Encoded frames are found again, forgotten in order, and never take more than their limit."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
from cachetools import FIFOCache, LRUCache
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline import frame_cache
from service.pipeline.depth_summary import Understood
from service.pipeline.frame_cache import ENTRY_BYTES, EncodedFrame, FrameCache
from vlm import Visual

FRAME_BYTES = 8 * 4 + ENTRY_BYTES


def frame(value: float = 0.0, numbers: int = 8) -> EncodedFrame:
    return EncodedFrame(Visual(torch.full((numbers, 1), float(value))))


def filled(limit_frames: int, *names: bytes) -> FrameCache:
    cache = FrameCache(limit_frames * FRAME_BYTES)
    for name in names:
        cache.put(name, frame(name[0]))
    return cache


def remembered(cache: FrameCache, names: bytes) -> bytes:
    return bytes(name for name in names if cache.get(bytes([name])) is not None)


def test_a_frame_is_found_again() -> None:
    cache, depth = filled(9), Understood("inverse", None, 2, 1, None, None, 1)
    cache.put(b"a", EncodedFrame(Visual(torch.arange(8.0).view(4, 2)), (depth,)))
    found = cache.get(b"a")
    assert found is not None and found.understood == (depth,)
    assert torch.equal(found.visual.features, torch.arange(8.0).view(4, 2))
    assert cache.get(b"b") is None
    assert (cache.entries, cache.bytes) == (1, FRAME_BYTES)


def test_the_longest_unused_goes_first() -> None:
    cache = filled(3, b"a", b"b", b"c")
    cache.get(b"a")
    cache.put(b"d", frame())
    assert remembered(cache, b"abcd") == b"acd"
    cache.put(b"c", frame())  # put again counts as used
    cache.put(b"e", frame())
    cache.put(b"f", frame())
    assert remembered(cache, b"acdef") == b"cef"


def test_a_large_frame_pushes_out_as_many_as_it_needs() -> None:
    cache = filled(4, b"a", b"b", b"c", b"d")
    cache.put(b"e", frame(numbers=(2 * FRAME_BYTES - ENTRY_BYTES) // 4))
    assert remembered(cache, b"abcde") == b"cde" and cache.bytes == 4 * FRAME_BYTES


def test_a_frame_larger_than_the_limit_is_not_kept_and_pushes_nothing_out() -> None:
    cache = filled(2, b"a", b"b")
    exact = (2 * FRAME_BYTES - ENTRY_BYTES) // 4
    cache.put(b"c", frame(numbers=exact + 1))
    assert remembered(cache, b"abc") == b"ab"
    cache.put(b"c", frame(numbers=exact))
    assert remembered(cache, b"abc") == b"c"


def test_no_memory_remembers_nothing() -> None:
    cache = filled(0, b"a")
    assert cache.get(b"a") is None and (cache.entries, cache.bytes) == (0, 0)


def test_a_frame_put_twice_is_counted_once() -> None:
    cache = filled(3, b"a", b"a", b"b")
    assert (cache.entries, cache.bytes) == (2, 2 * FRAME_BYTES)


BATCH = torch.arange(24.0).view(3, 4, 2)


@pytest.mark.parametrize("view", [BATCH[1], BATCH[0].T, BATCH[0, :1].expand(4, 2), BATCH[..., 1]], ids=str)
def test_what_is_kept_owns_its_memory(view: torch.Tensor) -> None:
    cache = FrameCache(1 << 20)
    before, batch = view.clone(), view.untyped_storage().data_ptr()
    cache.put(b"a", EncodedFrame(Visual(view)))
    found = cache.get(b"a")
    assert found is not None and torch.equal(found.visual.features, before)
    storage = found.visual.features.untyped_storage()
    assert found.visual.features.is_contiguous() and storage.nbytes() == found.visual.features.nbytes
    assert storage.data_ptr() != batch
    assert cache.bytes == storage.nbytes() + ENTRY_BYTES


def test_a_view_would_keep_its_batch_alive() -> None:
    """The twin: what the test above sees in a tensor that was not copied."""
    assert BATCH[1].untyped_storage().nbytes() == 3 * BATCH[1].nbytes


def test_a_frame_changed_after_it_was_put_is_kept_as_it_was() -> None:
    cache, given_away = FrameCache(1 << 20), torch.zeros(4, 2)
    cache.put(b"a", EncodedFrame(Visual(given_away)))
    given_away += 1
    found = cache.get(b"a")
    assert found is not None and not found.visual.features.any()


def test_no_graph_is_kept() -> None:
    cache = FrameCache(1 << 20)
    cache.put(b"a", EncodedFrame(Visual(torch.zeros(4, 2, requires_grad=True) * 2)))
    found = cache.get(b"a")
    assert (
        found is not None
        and found.visual.features.grad_fn is None
        and not found.visual.features.requires_grad
    )


NAMES = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, st.integers(0, 40)),
    st.tuples(st.just("get"), NAMES, st.just(0)),
)


def follow(cache: FrameCache, limit: int, steps: list[tuple[str, bytes, int]]) -> None:
    """Do the same with a plain list of names, oldest first, and compare."""
    order: list[tuple[bytes, int]] = []
    for what, name, numbers in steps:
        size = numbers * 4 + ENTRY_BYTES
        kept = dict(order)
        if what == "put" and size <= limit:
            cache.put(name, frame(numbers=numbers))
            order = [*((other, its) for other, its in order if other != name), (name, size)]
            while sum(its for _, its in order) > limit:
                order.pop(0)
        elif what == "put":
            cache.put(name, frame(numbers=numbers))
        else:
            assert (cache.get(name) is not None) is (name in kept)
            order.sort(key=lambda entry: entry[0] == name)
        assert (cache.entries, cache.bytes) == (len(order), sum(its for _, its in order))
        assert cache.bytes <= limit
    assert [cache.get(name) is not None for name, _ in order] == [True] * len(order)


@given(st.integers(0, 4 * FRAME_BYTES), st.lists(STEPS, max_size=40))
def test_the_limit_holds_whatever_happens(limit: int, steps: list[tuple[str, bytes, int]]) -> None:
    follow(FrameCache(limit), limit, steps)


def test_a_cache_that_forgets_in_another_order_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "LRUCache", FIFOCache)
    steps = [("put", b"a", 8), ("put", b"b", 8), ("get", b"a", 0), ("put", b"c", 8), ("get", b"a", 0)]
    with pytest.raises(AssertionError):
        follow(FrameCache(2 * FRAME_BYTES), 2 * FRAME_BYTES, steps)


def test_a_cache_that_counts_frames_and_not_bytes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "_size", lambda _: 1)
    with pytest.raises(AssertionError):
        follow(FrameCache(FRAME_BYTES), FRAME_BYTES, [("put", b"a", 8), ("put", b"b", 8)])


class Interrupted(LRUCache[bytes, EncodedFrame]):
    """Let other threads in before every frame that is looked up, kept or forgotten."""

    def __getitem__(self, key: bytes) -> EncodedFrame:
        time.sleep(0)
        return super().__getitem__(key)

    def __setitem__(self, key: bytes, value: EncodedFrame) -> None:
        time.sleep(0)
        super().__setitem__(key, value)

    def __delitem__(self, key: bytes) -> None:
        time.sleep(0)
        super().__delitem__(key)


def share(cache: FrameCache) -> None:
    """Use the cache from several threads; what each one finds must be right, and so must the bytes."""
    rounds, threads, limit = 400, 6, 10 * FRAME_BYTES

    def work(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(rounds):
            value = draw.randrange(30)
            kept = cache.get(bytes([value]))
            if kept is None:
                cache.put(bytes([value]), frame(value))
            else:
                assert kept.visual.features.eq(value).all()
            assert cache.bytes <= limit

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    assert cache.bytes == cache.entries * FRAME_BYTES <= limit


def test_threads_share_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "LRUCache", Interrupted)
    share(FrameCache(10 * FRAME_BYTES))


def test_threads_without_a_lock_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_cache, "LRUCache", Interrupted)
    cache = FrameCache(10 * FRAME_BYTES)
    vars(cache)["_lock"] = nullcontext()
    with pytest.raises((AssertionError, KeyError, StopIteration, RuntimeError)):
        share(cache)
