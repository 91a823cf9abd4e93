"""Doubts about depth files are in every answer that used them: one list with the same codes everywhere."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from depth import NOTES
from tests.depth.cases import case
from tests.depth.files import jpeg, npy, png8, png16
from tests.service.chats import chat, depth, image, text, user
from tests.service.conftest import Question
from tests.service.test_cli import run
from tests.service.test_streams import events_of

FRAME = Path(__file__).parents[2] / "examples" / "frames" / "room-1"
RGB, DEPTH = (FRAME / "rgb.png").read_bytes(), (FRAME / "depth.png").read_bytes()
MM = np.asarray(Image.open(io.BytesIO(DEPTH))).astype(np.float64)
INVERSE = (1 / MM - 1 / MM.max()) / (1 / MM.min() - 1 / MM.max())
PICTURE = MM / MM.max() * 230
ASKED = Question((RGB,), (DEPTH,), {"question": "how many ?", "max_new_tokens": 2, "method": "tosa"})
FILES: dict[str, bytes] = {
    "maybe_holes_65535": case("c10_7scenes.png"),
    "maybe_inverse": case("c02_stripped.png"),
    "maybe_zbuffer": case("c17_zbuffer.npy"),
    "few_values": case("c40_metres_to_png.png"),
    "zeros_are_holes": case("c07_scaleabs.png"),
    "zeros_are_depth": png8(np.round(INVERSE * 255)),
    "maybe_normalised": png16(np.round(INVERSE * 65_535)),
    "lossy": jpeg(PICTURE),
    "saturated": png8((MM / np.median(MM) * 255).clip(0, 255)),
    "few_valid": npy(np.where(np.arange(384) % 30 == 0, MM / 1000, 0)[::2, ::2].astype("f2")),
    "maybe_unaligned": png16(MM[::-1, ::-1]),
}


def codes(depth: dict[str, Any]) -> list[str]:
    """Return the codes of the notes of an answer's `depth`, and check their sentences."""
    assert all(note["sentence"] == NOTES[note["code"]] for note in depth["notes"])
    return [note["code"] for note in depth["notes"]]


def test_every_note_is_tried() -> None:
    assert {*FILES, "not_used"} == set(NOTES)


@pytest.mark.parametrize("code", FILES)
def test_an_answer_has_the_notes_of_its_depth(client: TestClient, code: str) -> None:
    response = ASKED.but(depths=(FILES[code],)).post(client, "json")
    assert response.status_code == 200, response.text
    assert code in codes(response.json()["depth"])


def test_a_good_frame_has_none(client: TestClient, form: str) -> None:
    assert codes(ASKED.post(client, form).json()["depth"]) == []
    assert codes(ASKED.but(depths=()).post(client, form).json()["depth"]) == []  # an estimate


UNUSED = {
    "a method without depth": ({"method": "tome"}, "unused"),
    "no merging": ({"method": "none"}, "unused"),
    "no depth wanted": ({"depth": "none"}, "none"),
    "an estimate wanted": ({"depth": "estimate"}, "estimate"),
}


@pytest.mark.parametrize(("fields", "source"), UNUSED.values(), ids=UNUSED)
def test_a_file_that_is_not_used_has_its_notes_and_says_so(
    client: TestClient, form: str, fields: dict[str, Any], source: str
) -> None:
    asked = ASKED.but(depths=(FILES["maybe_unaligned"],), **fields)
    answer = asked.post(client, form).json()["depth"]
    assert (answer["source"], codes(answer)) == (source, ["maybe_unaligned", "not_used"])
    assert (answer["kind"] == "metric") is (source == "unused")
    assert codes(asked.but(depths=(DEPTH,)).post(client, form).json()["depth"]) == ["not_used"]


def test_without_a_file_there_is_nothing_to_say(client: TestClient) -> None:
    asked = ASKED.but(depths=())
    assert asked.but(method="tome").post(client, "json").json()["depth"] is None
    assert codes(asked.but(depth="none").post(client, "json").json()["depth"]) == []


def test_a_comparison_says_which_settings_did_not_use_the_file(client: TestClient) -> None:
    specs = [{"method": method} for method in ("none", "tosa")]
    fields = {"question": "how many ?", "max_new_tokens": 2, "specs": specs}
    compared = Question((RGB,), (FILES["maybe_holes_65535"],), fields).post(client, "json", "/vqa/compare")
    found = [codes(one["depth"]) for one in compared.json()["results"]]
    assert found == [["maybe_holes_65535", "not_used"], ["maybe_holes_65535"]]


def test_of_several_images_each_note_is_there_once(client: TestClient) -> None:
    bad = FILES["maybe_holes_65535"]
    asked = ASKED.but(images=(RGB, RGB), depths=(bad, FILES["maybe_zbuffer"]))
    assert codes(asked.post(client, "json").json()["depth"]) == ["maybe_holes_65535", "maybe_zbuffer"]
    assert codes(asked.but(depths=(bad, bad)).post(client, "json").json()["depth"]) == ["maybe_holes_65535"]


def test_a_cached_frame_has_the_same_notes(client: TestClient) -> None:
    asked = ASKED.but(depths=(FILES["maybe_unaligned"],))
    assert [codes(asked.post(client, "json").json()["depth"]) for _ in range(2)] == [["maybe_unaligned"]] * 2


def test_comparisons_chats_streams_and_inspections_say_the_same(client: TestClient) -> None:
    bad = FILES["maybe_holes_65535"]
    expected = ["maybe_holes_65535"]
    compared = Question(
        (RGB,), (bad,), {"question": "how many ?", "max_new_tokens": 2, "specs": [{"method": "tosa"}]}
    )
    assert codes(compared.post(client, "json", "/vqa/compare").json()["results"][0]["depth"]) == expected
    asked = chat(user(image(RGB), depth(bad), text()), merge={"method": "tosa"})
    assert codes(client.post("/v1/chat/completions", json=asked).json()["depth"]) == expected
    options = {"stream": True, "stream_options": {"include_usage": True}}
    lines = client.post("/v1/chat/completions", json={**asked, **options}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert codes(chunks[-1]["depth"]) == expected
    streamed = events_of(ASKED.but(depths=(bad,), stream=True).post(client, "json").text)
    assert codes(streamed[-1][1]["depth"]) == expected
    inspected = Question((), (bad,), {}).post(client, "json", "/depth/inspect").json()
    assert codes(inspected) == expected


def test_the_range_of_a_turned_picture_is_in_its_own_numbers(client: TestClient) -> None:
    near_is_bright = np.round(250 * MM.min() / MM)
    answer = ASKED.but(depths=(png8(near_is_bright),)).post(client, "json").json()["depth"]
    assert answer["range"] == [250, near_is_bright.min()]
    both = ASKED.but(images=(RGB, RGB), depths=(png8(near_is_bright), png8(np.round(PICTURE))))
    assert both.post(client, "json").json()["depth"]["range"] is None  # one grows with distance, one falls


def test_the_command_line_prints_them(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "rgb.png").write_bytes(RGB)
    (tmp_path / "depth.png").write_bytes(FILES["maybe_unaligned"])
    (tmp_path / "holes.png").write_bytes(FILES["maybe_holes_65535"])
    ask = ("ask", "--image", tmp_path / "rgb.png", "--question", "how many ?", "--model", checkpoint)
    ask = (*ask, "--max-new-tokens", 2, "--depth")
    shown = " ".join(run(*ask, tmp_path / "depth.png", COLUMNS=400).stdout.split())
    assert NOTES["maybe_unaligned"] in shown
    assert codes(json.loads(run(*ask, tmp_path / "holes.png", "--json").stdout)["depth"]) == [
        "maybe_holes_65535"
    ]
    unused = run(*ask, tmp_path / "holes.png", "--method", "tome", COLUMNS=400).stdout
    assert "sent, and not used" in unused and NOTES["maybe_holes_65535"] in " ".join(unused.split())
    seen = run("depth", tmp_path / "depth.png", "--image", tmp_path / "rgb.png", COLUMNS=400).stdout
    assert NOTES["maybe_unaligned"] in " ".join(seen.split())
