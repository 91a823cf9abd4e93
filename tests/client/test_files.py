"""What a program has becomes the file that the service reads, without a change of a pixel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.service.files import DEPTH, IMAGE, PIXELS
from tosa_vqa_client import BadInput, Client
from tosa_vqa_client.files import depth_file, image_file, several

METRES = np.linspace(0.5, 4, 12, dtype=np.float32).reshape(3, 4)


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)))


def test_files_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rgb.png"
    path.write_bytes(IMAGE)
    with path.open("rb") as file:
        given = (IMAGE, bytearray(IMAGE), memoryview(IMAGE), path, str(path), file)
        assert {image_file(one) for one in given} == {IMAGE}  # type: ignore[arg-type]
    assert depth_file(DEPTH) == DEPTH


@pytest.mark.parametrize(
    "array",
    [PIXELS, PIXELS[:, ::-1], PIXELS[..., 0], np.concatenate([PIXELS, PIXELS[..., :1]], 2), PIXELS[:1, :1]],
    ids=["rgb", "a view", "grey", "rgba", "one pixel"],
)
def test_an_array_becomes_a_png_with_its_pixels(array: np.ndarray) -> None:
    assert np.array_equal(pixels(image_file(array)), array)


def test_a_pillow_image_becomes_a_png_with_its_pixels() -> None:
    assert np.array_equal(pixels(image_file(Image.fromarray(PIXELS))), PIXELS)


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32", "float64"])
def test_depth_keeps_its_numbers_and_their_type(kind: str) -> None:
    values = (METRES * 1000).astype(kind)
    read = np.load(io.BytesIO(depth_file(values)))
    assert read.dtype == values.dtype and np.array_equal(read, values)


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_depth_of_pillow_keeps_its_numbers(kind: str) -> None:
    values = (METRES * 1000).astype(kind)
    file = depth_file(Image.fromarray(values))
    read = np.load(io.BytesIO(file)) if file.startswith(b"\x93NUMPY") else pixels(file)
    assert np.array_equal(read, values)


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (
            image_file,
            PIXELS.astype(np.float32),
            "uint8, height x width x 3 in RGB order, and this is fl",
        ),
        (image_file, PIXELS[None], "of 1 x 48 x 64 x 3"),
        (image_file, 7, "not int"),
        (image_file, io.StringIO("x"), "binary mode"),
        (depth_file, PIXELS, "uint8 of 48 x 64 x 3"),
        (depth_file, np.array([["a"]]), "height x width of integers or floats"),
    ],
)
def test_what_cannot_be_sent_is_named(make: Any, given: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        make(given)


def test_nothing_is_sent_of_a_request_that_cannot_be_written() -> None:
    with Client("http://127.0.0.1:9") as client:  # nobody listens there
        for options in ({"r": []}, {"options": {"tau": {1}}}):
            with pytest.raises(BadInput, match=next(iter(options))):
                client.ask("how many ?", IMAGE, **options)  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError):
            client.ask("how many ?", "/nowhere/rgb.png")


def test_a_list_is_several_and_an_array_is_one() -> None:
    assert len(several([IMAGE, IMAGE])) == 2 and len(several(PIXELS)) == len(several(IMAGE)) == 1
