"""Views: their boxes show where they stand, and what a family does not have is refused with what it has."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from depth import DepthMap, depth_codes
from tests.vlm.families import CASES, kinds, write_family
from tests.vlm.family_pictures import ask_for, picture, pictures, processed, read
from tosa import MergeSpec
from vlm import Decoding, GenerationParams, Vlm, VlmError, layouts, load_vlm, plan_views, spell, view_pixels
from vlm.families import VIEWS, Layout
from vlm.families.anyres import count_packed, pack
from vlm.families.idefics3 import split_tiles
from vlm.families.layout import padded_box
from vlm.families.words import in_words

SQUARE_TOWERS = [name for name in CASES if "qwen" not in name]
SQUARE_VIEWS = [
    (name, views) for name in SQUARE_TOWERS for views in ("auto", *kinds(name)) if views != "video"
]
SHAPES = [(300, 400), (400, 300), (900, 100), (512, 512), (700, 900)]


def gradient(size: tuple[int, int]) -> Image.Image:
    """Paint a picture whose red is how far to the right a pixel is, and whose green how far down."""
    height, width = size
    x = np.broadcast_to((np.arange(width) + 0.5) / width * 255, size)
    y = np.broadcast_to((np.arange(height)[:, None] + 0.5) / height * 255, size)
    return Image.fromarray(np.stack([x, y, np.full(size, 128)], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "views"), SQUARE_VIEWS)
def test_a_box_is_the_part_of_the_picture_that_a_view_shows(
    member: Callable[..., Any], name: str, views: Any, size: tuple[int, int]
) -> None:
    require_boxes(member(name).vlm, views, size)


@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_llava_follows_an_image_processor_that_pads_or_squeezes(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    folder = write_family(tmp_path, "llava")
    path = folder / "processor_config.json"
    written = json.loads(path.read_text())
    side = written["image_processor"]["crop_size"]["height"]
    found = []
    for changes in (
        {"image_processor_type": "LlavaImageProcessor", "do_pad": True},
        {"do_center_crop": False, "size": {"height": side, "width": side}},
    ):
        path.write_text(json.dumps(written | {"image_processor": written["image_processor"] | changes}))
        vlm = load_vlm(folder)
        found.append(layouts(vlm, [size])[0].kind)
        require_boxes(vlm, "auto", size)
        ours = vlm.family.pixels([picture(size)], layouts(vlm, [size])[0])
        theirs = vlm.family.processor([picture(size)], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    assert found == ["native", "single"]


def require_boxes(vlm: Vlm, views: Any, size: tuple[int, int]) -> None:
    """Look for the colours of a gradient where the boxes say that they are."""
    (layout,) = layouts(vlm, [size], views)
    shown = vlm.family.pixels([gradient(size)], layout)
    colours = vlm.family.settings
    scale = 255 if colours.rescale < 1 else 1
    shown = shown * torch.tensor(colours.std).view(3, 1, 1) + torch.tensor(colours.mean).view(3, 1, 1)
    side = shown.shape[-1]
    for view, pixels in zip(layout.views, shown, strict=True):
        for u, v in ((0.5, 0.5), (0.2, 0.7), (0.8, 0.3)):
            x = view.box.left + u * (view.box.right - view.box.left)
            y = view.box.top + v * (view.box.bottom - view.box.top)
            if not (0.03 < x < 0.97 and 0.03 < y < 0.97):
                continue  # near an edge, or in a bar beyond it
            red, green, _ = (pixels[:, int(v * side), int(u * side)] * scale / 255).tolist()
            # Within a pixel of the view, and of rounding.
            slack = 0.015 + 1.5 / side * max(view.box.right - view.box.left, view.box.bottom - view.box.top)
            assert abs(red - x) < slack
            assert abs(green - y) < slack


def test_codes_of_depth_follow_the_boxes(member: Callable[..., Any]) -> None:
    values = np.tile(np.linspace(1, 9, 400, dtype=np.float32), (300, 1))
    depth = DepthMap(values, "relative", None, np.ones_like(values, dtype=bool))
    (layout,) = layouts(member("llava_next").vlm, [(300, 400)])
    whole, *tiles = (depth_codes(depth, layout.grid, 8, astuple(view.box)) for view in layout.views)
    assert len(tiles) == math.prod(layout.tiles)
    down, across = layout.tiles
    rows = torch.cat([torch.cat(tiles[at * across : (at + 1) * across], dim=1) for at in range(down)])
    inside = (rows != rows.median()).any(dim=1)
    assert (rows[inside].diff(dim=1) <= 0).all()  # from near on the left to far on the right, across tiles
    assert set(whole.flatten().tolist()) <= set(rows.flatten().tolist())


@pytest.mark.parametrize("name", CASES)
def test_a_picture_that_is_a_line_is_seen_whole_or_refused(member: Callable[..., Any], name: str) -> None:
    vlm = member(name).vlm
    for size in ((1, 300), (300, 1)):
        try:
            (layout,) = layouts(vlm, [size])
        except VlmError as error:
            assert (error.code, error.field, error.limit) == ("unsupported_image", "image", 100)
            continue
        assert layout.kind == "single"
    assert read(vlm, [picture((1, 90))])[1]


@pytest.mark.parametrize("size", [(1, 60), (3, 60), (60, 3), (3, 3)], ids=str)
@pytest.mark.parametrize("name", [name for name in CASES if "video" in kinds(name)])
def test_the_colours_of_a_video_of_any_height_are_those_of_its_frames(
    member: Callable[..., Any], name: str, size: tuple[int, int]
) -> None:
    vlm = member(name).vlm
    shown = []
    for each in (size, (60, 60)):  # of one colour, whatever the size: red, unlike green and blue
        frames = [Image.new("RGB", (each[1], each[0]), (255, 9, 90))] * 4
        (layout,) = layouts(vlm, [each] * 4, "video")
        pixels = vlm.family.pixels(frames, layout)
        assert pixels.shape == vlm.family.pixel_shape(layout)
        shown.append({round(value, 5) for value in pixels.flatten().tolist()})
    assert shown[0] == shown[1]
    assert len(shown[0]) == 3


def test_a_video_needs_as_many_frames_as_its_model(member: Callable[..., Any]) -> None:
    with pytest.raises(VlmError) as error:
        layouts(member("qwen3_vl").vlm, [(96, 128)], "video")
    assert (error.value.code, error.value.field) == ("unsupported_image", "image")


@pytest.mark.parametrize("name", CASES)
def test_views_that_a_family_does_not_have_are_refused(member: Callable[..., Any], name: str) -> None:
    vlm = member(name).vlm
    for views in VIEWS:
        if views == "auto" or views in kinds(name):
            assert layouts(vlm, [(96, 128)] * 2, views)
            continue
        with pytest.raises(VlmError) as error:
            layouts(vlm, [(96, 128)], views)
        assert (error.value.code, error.value.field) == ("unsupported_views", "views")
        assert error.value.choices == tuple(each for each in VIEWS if each == "auto" or each in kinds(name))


def test_a_layout_takes_the_pictures_it_was_made_for(member: Callable[..., Any]) -> None:
    vlm = member("llava").vlm
    (layout,) = layouts(vlm, [(96, 128)])
    with pytest.raises(ValueError, match="height, width"):
        view_pixels(vlm, [picture((128, 96))], layout)
    with pytest.raises(ValueError, match="1 pictures"):
        view_pixels(vlm, pictures([(96, 128)] * 2), layout)


def test_gemma_crops_as_its_processor_pans_and_scans(member: Callable[..., Any]) -> None:
    it = member("gemma3")
    image = picture((600, 1600))
    inputs = processed("gemma3", it.processor, [image], "anyres")
    (layout,) = layouts(it.vlm, [(600, 1600)], "anyres")
    assert (len(layout.views), layout.tiles) == (4, (1, 3))
    torch.testing.assert_close(
        it.vlm.family.pixels([image], layout), inputs["pixel_values"], rtol=0, atol=2e-6
    )
    spelled = spell(it.vlm, layout, plan_views(it.vlm, MergeSpec(), layout))
    assert torch.equal(ask_for(it.vlm, [spelled]), inputs["input_ids"])


def test_merged_tiles_keep_a_newline_for_every_row_while_they_keep_a_grid() -> None:
    layout = Layout("anyres", (100, 300), (9, 9), (126, 126), tiles=(1, 2))
    newline, features = torch.full((4,), -1.0), torch.arange(3 * 6 * 4).view(3, 6, 4).float()
    packed = pack(features, layout, (2, 3), newline, None)
    assert len(packed) == count_packed(layout, (2, 3), 6, None) == 6 + 2 * (6 + 1)
    assert (packed == -1).all(dim=1).nonzero().flatten().tolist() == [12, 19]
    assert torch.equal(packed[6:12], torch.cat((features[1, :3], features[2, :3])))  # the first row of both
    loose = pack(features, layout, None, newline, None)
    assert len(loose) == count_packed(layout, None, 6, None) == 6 + 2 * (6 + 1)
    assert torch.equal(loose[6:12], features[1])


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1), (3, 500)], ids=str)
@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (1, 3)], ids=str)
def test_packing_leaves_something_of_the_narrowest_picture(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    layout = Layout("anyres", size, (9, 9), (126, 126), tiles=(2, 2))
    tokens = math.prod(grid)
    packed = pack(torch.ones(5, tokens, 4), layout, grid, torch.zeros(4), None)
    assert len(packed) == count_packed(layout, grid, tokens, None) > tokens


@settings(max_examples=60)
@given(st.integers(1, 2500), st.integers(1, 2500))
def test_tiles_of_idefics_are_those_of_its_processor(height: int, width: int) -> None:
    from transformers import Idefics3ImageProcessor

    assume(max(height, width) <= 100 * min(height, width))  # of others it makes sides of 0 px, and fails
    sizes: dict[str, Any] = {"size": {"longest_edge": 4 * 28}, "max_image_size": {"longest_edge": 28}}
    processor: Any = Idefics3ImageProcessor(**sizes)
    blank = torch.zeros(3, height, width, dtype=torch.uint8)
    found = processor.preprocess([[blank]], return_row_col_info=True, return_tensors="pt")
    assert split_tiles((height, width), 4 * 28, 28) == (found["rows"][0][0] or 1, found["cols"][0][0] or 1)


def test_padding_boxes_show_the_whole_picture_between_bars() -> None:
    box = padded_box((100, 300))
    assert (box.left, box.right) == (0, 1)
    assert (box.top, box.bottom) == (-1, 2)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (8, "eight"),
        (13, "thirteen"),
        (20, "twenty"),
        (64, "sixty-four"),
        (100, "one hundred"),
        (345, "three hundred and forty-five"),
    ],
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_merged_tokens_stand_where_the_cells_stood_whose_places_they_keep(
    member: Callable[..., Any], name: str
) -> None:
    vlm = member(name).vlm
    image = picture((300, 400))
    positions = {}
    for method, keep in (("none", None), ("tome", 0.25)):
        ids, visuals = read(vlm, [image], MergeSpec(method, keep_ratio=keep))
        found, after = vlm.family.positions(ids[0].tolist(), visuals, torch.device("cpu"))
        at = vlm.family.is_visual(ids[0])
        positions[method] = (
            {tuple(each) for each in found[:, at].T.tolist()},
            found[:, ~at].T.tolist(),
            after,
        )
    assert positions["tome"][0] < positions["none"][0]
    assert positions["tome"][1:] == positions["none"][1:]  # the text stands where it stood


def test_times_of_a_video_are_positions_where_they_are_far_enough_apart(member: Callable[..., Any]) -> None:
    vlm = member("qwen2_5_vl").vlm
    (video,) = layouts(vlm, [(96, 128)] * 30, "video")
    assert vlm.family.view_times(video) == [
        at // 6 for at in range(15)
    ]  # 2 frames of 24 in a second, times 2


def test_features_without_places_are_refused_where_positions_need_them(member: Callable[..., Any]) -> None:
    vlm = member("qwen3_vl").vlm
    ids, (visual,) = read(vlm, [picture((96, 128))])
    with pytest.raises(ValueError, match="place"):
        Decoding(vlm, [ids], [visual.features], [GenerationParams()])


def test_the_frames_of_a_video_are_told_apart_by_their_times(member: Callable[..., Any]) -> None:
    vlm = member("qwen3_vl").vlm
    (video,) = layouts(vlm, [(96, 128)] * 3, "video")
    assert [view.frames for view in video.views] == [(0, 1), (2, 2)]
    spelled = spell(vlm, video, plan_views(vlm, MergeSpec(), video))
    assert (spelled.modality, len(spelled.counts)) == ("video", 2)
    assert spelled.text.startswith("<0.0 seconds><|vision_start|>")
    assert "<0.1 seconds>" in spelled.text
