"""Two frames share a name exactly if their encoding is the same computation for the same owner."""

from __future__ import annotations

import hashlib
import io
import random
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import service.pipeline.frame_keys as frame_keys
from service.pipeline.depth_source import spatial_of
from service.pipeline.frame_keys import (
    DepthIdentity,
    DepthKind,
    estimate_digest,
    frame_key,
    pixels_digest,
    spatial_digest,
    written,
)
from service.pipeline.images import decode_image
from tests.depth.estimators import Fake
from tests.depth.files import decode_depth, npy, png16, raw_png
from tests.service.files import DEPTH, IMAGE, PIXELS, encode
from tosa import METHODS, EncoderShape, MergePlan, MergeSpec, MergeStep, make_plan, spatial_tokens
from vlm import ImageSettings, Vlm, load_vlm
from vlm import encode as encode_pictures

SHAPE = EncoderShape(num_layers=4, grid=(4, 4), hidden_size=32, mlp_size=48)
SETTINGS = ImageSettings(56, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255, 3)
MAX_PX = 1_000_000
POSITION = DepthIdentity(DepthKind.POSITION)


def client(digest: bytes) -> DepthIdentity:
    return DepthIdentity(DepthKind.CLIENT, digest)


def plan(method: str = "tome", **spec: Any) -> MergePlan:
    return make_plan(MergeSpec(method, **{"keep_ratio": 0.5, **spec}), SHAPE)


def inputs(**changes: Any) -> dict[str, Any]:
    usual = {
        "image": Image.fromarray(PIXELS),
        "plan": plan(),
        "vlm_id": "room-tiny",
        "revision": "0123456789abcdef",
        "image_settings": SETTINGS,
        "dtype": torch.float32,
        "device_type": "cpu",
        "depth": None,
        "tenant": None,
    }
    return usual | changes


def key(**changes: Any) -> bytes:
    given = inputs(**changes)
    return frame_key(given.pop("image"), **given)


def naive_key(**changes: Any) -> bytes:
    """What must not be done: the same inputs, joined without saying where one ends."""
    digest = hashlib.sha256()
    for value in inputs(**changes).values():
        if isinstance(value, Image.Image):
            value = value.tobytes()
        parts = [value.kind, value.digest or ""] if isinstance(value, DepthIdentity) else [value]
        for part in parts:
            digest.update(part if isinstance(part, bytes) else str(part).encode())
    return digest.digest()


def test_the_format_is_the_one_that_was_pinned() -> None:
    image = Image.frombytes("RGB", (2, 1), bytes(range(6)))
    assert pixels_digest(image).hex() == PINNED["pixels"]
    assert spatial_digest(torch.arange(6.0).view(2, 3)).hex() == PINNED["spatial"]
    assert estimate_digest(Fake(np.asarray)).hex() == PINNED["estimate"]
    assert key(image=image).hex() == PINNED["tome"]
    assert key(image=image, plan=plan("tosa"), depth=client(bytes(32)), tenant="lab").hex() == PINNED["tosa"]


PINNED = {
    "pixels": "8cfba2f34b481cdce419e8210541205403db99817e4c571e4f36fec539657758",
    "spatial": "3b4b9e6ec4ce95abc76bccde0b23ba5223fbffb78ce38c189da3c5192a6a8a23",
    "estimate": "e0a77d0040d13f3c6f4229a8dcca0de5ee03f32868b90e0767a10a67790e9af6",
    "tome": "bd29ee8d2162d092b9f613f78e7ffd59f271619a79cfd27826da06e3b0d79fb5",
    "tosa": "b21ea3a8af79bb0d3b9588a42e475e3637e4468a4e0d5704140b203f4c0c9539",
}


def test_a_key_is_a_whole_digest_and_the_same_for_the_same() -> None:
    assert len(key()) == 32 and key() == key(image=Image.fromarray(PIXELS.copy()))
    assert key() == key(image=pixels_digest(Image.fromarray(PIXELS)))


@pytest.mark.parametrize(
    "change",
    [
        {"plan": plan(keep_ratio=0.25)},
        {"plan": plan("tofu")},
        {"plan": plan("pitome")},
        {"plan": plan("pitome", options={"margin": 0.5})},
        {"plan": plan("random", options={"seed": 1})},
        {"plan": plan("random", options={"seed": 2})},
        {"plan": plan(prop_attn=False)},
        {"plan": plan(order="merge")},
        {"plan": plan(layers=(0, 1))},
        {"plan": make_plan(MergeSpec("tome", keep_ratio=0.5), replace(SHAPE, hidden_size=64))},
        {"plan": plan("tosa"), "depth": POSITION},
        {"plan": plan("tosa", alpha=0.5), "depth": POSITION},
        {"plan": plan("tosa", spatial_kernel="distance"), "depth": POSITION},
        {"plan": plan("tosa"), "depth": client(b"position")},
        {"plan": plan("tosa"), "depth": DepthIdentity(DepthKind.ESTIMATE)},
        {"plan": plan("tosa"), "depth": DepthIdentity(DepthKind.ESTIMATE, b"position")},
        {"plan": plan("tosa"), "depth": DepthIdentity(DepthKind.ESTIMATE, b"a@1@518")},
        {"plan": plan("cubist", options={"depth_weight": 0.5}), "depth": POSITION},
        {"vlm_id": "room-small"},
        {"revision": "0123456789abcdee"},
        {"dtype": torch.bfloat16},
        {"device_type": "cuda"},
        {"tenant": ""},
        {"tenant": "None"},
        {"tenant": "lab"},
        {"image_settings": replace(SETTINGS, resample=2)},
    ],
    ids=str,
)
def test_every_other_input_gives_another_key(change: dict[str, Any], seen: dict[bytes, Any]) -> None:
    assert seen.setdefault(key(**change), change) is change and key(**change) != key()


@pytest.fixture(scope="module")
def seen() -> dict[bytes, Any]:
    return {}


# Each of these fooled a cache of somebody: sizes, modes, joined fields.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transposed": (
        {"image": Image.new("RGB", (30, 100), "red")},
        {"image": Image.new("RGB", (100, 30), "red")},
    ),
    "moved boundary": ({"vlm_id": "a/b1", "revision": "23"}, {"vlm_id": "a/b", "revision": "123"}),
    "nobody is a name": ({"tenant": None}, {"tenant": "None"}),
    "text is bytes": (
        {"plan": plan("tosa"), "depth": DepthIdentity(DepthKind.ESTIMATE, cast(bytes, "a@1@9"))},
        {"plan": plan("tosa"), "depth": DepthIdentity(DepthKind.ESTIMATE, b"a@1@9")},
    ),
    "depth is tenant": (
        {"plan": plan("tosa"), "depth": POSITION, "tenant": "a"},
        {"plan": plan("tosa"), "depth": DepthIdentity(DepthKind.POSITION, b"a"), "tenant": ""},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_naive_key_collides_where_ours_does_not(name: str) -> None:
    first, second = PAIRS[name]
    assert naive_key(**first) == naive_key(**second)
    assert key(**first) != key(**second)


def decoded_key(data: bytes) -> bytes:
    return key(image=decode_image(data, MAX_PX))


def paletted(colour: tuple[int, int, int]) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def oriented(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(pixels, "PNG", exif=exif)


def with_alpha(alpha: int) -> bytes:
    layer = np.full((*PIXELS.shape[:2], 1), alpha, dtype=np.uint8)
    return encode(np.concatenate((PIXELS, layer), axis=2), "PNG")


def test_what_an_image_shows_decides() -> None:
    assert decoded_key(IMAGE) == key()
    assert decoded_key(IMAGE + b"bytes after IEND") == key()
    assert decoded_key(encode(PIXELS, "WEBP", lossless=True)) == key()
    assert decoded_key(with_alpha(255)) == key()
    assert decoded_key(with_alpha(254)) != key()
    assert decoded_key(paletted((255, 0, 0))) == key(image=Image.new("RGB", (4, 4), (255, 0, 0)))
    assert decoded_key(paletted((255, 0, 0))) != decoded_key(paletted((0, 0, 255)))


def test_orientation_counts_once_it_is_applied() -> None:
    turned = oriented(np.rot90(PIXELS), 6)  # 6: to be shown turned clockwise, which undoes it
    assert decoded_key(turned) == key()
    assert len({decoded_key(oriented(PIXELS, orientation)) for orientation in range(1, 9)}) == 8


def test_one_pixel_makes_another_frame() -> None:
    changed = PIXELS.copy()
    changed[-1, -1, -1] ^= 1
    assert key(image=Image.fromarray(changed)) != key()


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "I;16", "CMYK"])
def test_an_image_that_is_not_rgb_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="RGB"):
        key(image=Image.new(mode, (4, 4)))


@pytest.mark.parametrize("strip_px", [1, 65, 1000, 10**9])
def test_how_an_image_is_cut_for_hashing_does_not_show(
    strip_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = key()
    monkeypatch.setattr(frame_keys, "STRIP_PX", strip_px)
    assert key() == usual


def depth_key(method: str, depth: bytes, **spec: Any) -> bytes:
    """Name a frame with the depth of a file, as a request would."""
    chosen = plan(method, **spec)
    return key(plan=chosen, depth=client(spatial_digest(spatial_of(chosen, [decode_depth(depth)]))))


STEPS = np.kron(np.random.default_rng(0).integers(300, 9000, (4, 4)), np.ones((12, 16)))


def test_depth_counts_only_where_it_steers() -> None:
    assert depth_key("tosa", DEPTH) != depth_key("tosa", png16(STEPS))
    assert depth_key("tome", DEPTH) == depth_key("tome", png16(STEPS)) == key(plan=plan("tome"))
    weighted = {"options": {"depth_weight": 0.5}}
    assert depth_key("cubist", DEPTH, **weighted) != depth_key("cubist", png16(STEPS), **weighted)
    assert depth_key("cubist", DEPTH) == depth_key("cubist", png16(STEPS))


def test_depth_that_means_the_same_is_the_same() -> None:
    assert depth_key("tosa", png16(STEPS)) == depth_key("tosa", npy(STEPS.astype(np.uint16)))


def test_the_same_bytes_as_8_and_16_bits_are_different_depth() -> None:
    wide = np.random.default_rng(1).integers(1, 255, (48, 128), dtype=np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    as_8, as_16 = raw_png(128, 48, rows, bits=8), raw_png(64, 48, rows, bits=16)
    assert depth_key("tosa", as_8) != depth_key("tosa", as_16)


def test_spatial_digest_sees_type_and_shape_and_no_stride() -> None:
    numbers = torch.arange(12, dtype=torch.int16)
    views = [numbers, numbers.view(3, 4), numbers.view(4, 3), numbers.view(torch.uint8), numbers.float()]
    assert len({spatial_digest(view) for view in views}) == len(views)
    square = numbers.view(3, 4)
    assert spatial_digest(square.T) == spatial_digest(square.T.contiguous()) != spatial_digest(square)
    assert spatial_digest(torch.zeros(2, 3)[:1]) == spatial_digest(torch.zeros(1, 3))
    assert spatial_digest(torch.ones(2, dtype=torch.bfloat16)) != spatial_digest(torch.ones(2))


@pytest.mark.parametrize("change", [{"id": "other"}, {"revision": "2"}, {"size_px": 8}])
def test_another_estimator_is_another_depth(change: dict[str, Any]) -> None:
    other = Fake(np.asarray)
    vars(other).update(change)
    assert estimate_digest(other) != estimate_digest(Fake(np.asarray))


def test_a_plan_that_needs_depth_is_not_named_without() -> None:
    with pytest.raises(ValueError, match="spatial"):
        key(plan=plan("tosa"))


def test_words_that_lead_to_the_same_plan_share_a_frame() -> None:
    by_ratio = plan("tome", keep_ratio=0.5)
    removed = tuple(step.r if step else 0 for step in by_ratio.steps)
    assert key(plan=plan("tome", keep_ratio=None, r=removed)) == key(plan=by_ratio)


def altered(value: Any) -> Any:
    """Change a value into another one of its kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple() if value:
            return (*value[:-1], altered(value[-1]))
        case MergeStep():
            return replace(value, r=value.r + 1)
        case EncoderShape():
            return replace(value, mlp_size=value.mlp_size + 1)
    return "something"  # None, (), an object


@pytest.mark.parametrize("name", [field.name for field in fields(MergePlan) if field.name != "spec"])
def test_every_field_of_a_plan_counts(name: str) -> None:
    usual = plan("tosa")
    assert key(plan=replace(usual, **{name: altered(getattr(usual, name))}), depth=POSITION) != key(
        plan=usual, depth=POSITION
    )


@pytest.mark.parametrize("owner", [SETTINGS, SHAPE, MergeStep(0)], ids=lambda owner: type(owner).__name__)
def test_every_field_of_its_parts_counts(owner: Any) -> None:
    others = [replace(owner, **{field.name: altered(getattr(owner, field.name))}) for field in fields(owner)]
    assert len({written(value) for value in [owner, *others]}) == len(others) + 1


@pytest.fixture(scope="module")
def vlm(checkpoint: Path) -> Vlm:
    return load_vlm(checkpoint)


@pytest.mark.parametrize("method", METHODS)
def test_the_words_of_a_request_change_nothing_beyond_its_plan(vlm: Vlm, method: str) -> None:
    """A key leaves MergePlan.spec out; this is why it may."""
    budget: dict[str, Any] = {} if method == "none" else {"keep_ratio": 0.5}
    chosen = make_plan(MergeSpec(method, **budget), vlm.shape)
    reworded = replace(chosen, spec=MergeSpec("nonsense", alpha=0.123, order="merge", prop_attn=False))
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    spatial = spatial_tokens(torch.arange(16).view(1, 4, 4).expand(2, 4, 4)) if chosen.needs_spatial else None
    with torch.inference_mode():
        results = [encode_pictures(vlm.tower, pixels, each, spatial).x for each in (chosen, reworded)]
    assert torch.equal(*results)


def read_back(data: bytes) -> tuple[Any, bytes]:
    """Read one written value; return it and what is left."""
    letter, length, rest = data[:1], struct.unpack(">Q", data[1:9])[0], data[9:]
    assert len(rest) >= length
    content, rest = rest[:length], rest[length:]
    match letter:
        case b"n" | b"t" | b"f":
            return {b"n": None, b"t": True, b"f": False}[letter], rest
        case b"i":
            return int(content), rest
        case b"d":
            return struct.unpack(">d", content)[0], rest
        case b"s":
            return content.decode("utf-8", "surrogatepass"), rest
        case b"b":
            return content, rest
    assert letter == b"l"
    parts = []
    while content:
        part, content = read_back(content)
        parts.append(part)
    return tuple(parts), rest


def typed(value: Any) -> Any:
    """Tell 1, 1.0, True, 0.0 and -0.0 apart, and find NaN equal to itself."""
    return tuple(map(typed, value)) if isinstance(value, tuple) else (type(value), repr(value))


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=12)


@given(VALUES, VALUES)
def test_what_is_written_can_be_read_back(first: Any, second: Any) -> None:
    value, rest = read_back(written(first) + written(second))
    assert typed(value) == typed(first)
    assert typed(read_back(rest)[0]) == typed(second) and read_back(rest)[1] == b""


def test_dataclasses_are_written_with_their_names() -> None:
    step, options = MergeStep(1, r=2), vars(MergeStep(1, r=2))
    assert len({written(value) for value in (step, tuple(options.items()), tuple(options.values()))}) == 3
    assert all(name.encode() in written(step) for name in ("MergeStep", *options))


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, {1}, MergeStep, torch.zeros(1), np.float32(1)],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        written(value)


def small_fields(number: int) -> list[tuple[Any, ...]]:
    """Draw different tuples out of few letters, where joined fields meet soon."""
    draw = random.Random(0)
    atoms = ["", "a", "b", "ab", "1", b"", b"a", b"1", 1, 11, 1.0, True, False, None, (), ("a",), ("a", "b")]
    return list(
        {typed(drawn): drawn for drawn in (tuple(draw.choices(atoms, k=5)) for _ in range(number))}.values()
    )


def collisions(values: list[Any], name: Callable[[Any], bytes]) -> int:
    return len(values) - len({hashlib.sha256(name(value)).digest() for value in values})


def test_small_fields_never_meet() -> None:
    values = small_fields(60_000)
    assert len(values) > 50_000
    assert collisions(values, written) == 0
    assert collisions(values, lambda value: "".join(map(str, value)).encode()) > 1000


def test_nobody_added_a_field_to_a_request_unnoticed() -> None:
    """A field of MergeSpec that reached the encoder, but not the plan, would have to be named in a key."""
    dials = {"keep_ratio", "r", "r_hw", "schedule", "layers", "alpha"}
    known = {"method", *dials, "spatial_kernel", "prop_attn", "order", "options"}
    assert {field.name for field in fields(MergeSpec)} == known
