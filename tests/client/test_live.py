"""The client against a running service: the same answers as plain HTTP, streams, comparisons, refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

from tests.loopback import PATIENCE_S, wait_for
from tests.service.files import DEPTH, IMAGE, PIXELS
from tests.service.live import Live
from tosa_vqa_client import (
    Answer,
    AsyncClient,
    BadResponse,
    Client,
    ComparedAnswer,
    ComparedRefusal,
    DeadlineExceeded,
    ServiceError,
)

QUESTION = "how many cubes ?"
VALUES = np.arange(500, 500 + 48 * 64, dtype=np.uint16).reshape(48, 64)
MEASURED = ("request_id", "timings_ms", "raw")


def what_was_said(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in vars(answer).items() if name not in MEASURED}


def awaited(served: Live, call: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with AsyncClient(f"http://127.0.0.1:{served.port}") as client:
            return await call(client)

    return anyio.run(run)


def test_files_arrays_and_images_are_the_same_question(served: Live, client: Client) -> None:
    options: Any = {"method": "tosa", "keep_ratio": 0.5, "max_new_tokens": 4}
    plain = served.client.post(
        "/vqa", data={"question": QUESTION, **options}, files={"image": IMAGE, "depth": DEPTH}
    ).json()
    file = client.ask(QUESTION, IMAGE, DEPTH, **options)
    assert file.answer == plain["answer"] and file.raw.keys() == plain.keys()
    assert file.raw["merge"] == plain["merge"] and file.depth and file.depth.source == "client"
    for image, depth in ((PIXELS, VALUES), (Image.fromarray(PIXELS), Image.fromarray(VALUES))):
        assert what_was_said(client.ask(QUESTION, image, depth, **options)) == what_was_said(file)
    again = awaited(served, lambda client: client.ask(QUESTION, PIXELS, VALUES, **options))
    assert what_was_said(again) == what_was_said(file)


def test_every_kind_of_option_arrives(client: Client) -> None:
    merging: Any = {"method": "tofu", "r": [4, 2], "layers": [0, 1], "options": {"switch_layer": 1}}
    merging |= {"prop_attn": False, "schedule": "constant"}
    decoding: Any = {"seed": 3, "temperature": 0.5, "top_p": 0.9, "cache": False, "max_new_tokens": 2}
    more: Any = {"depth_source": "none", "views": "single", "request_id": "robot-7.1"}
    several = client.ask(QUESTION, [IMAGE, PIXELS], **merging, **decoding, **more)
    assert several.merge.r == (4, 2) and several.merge.options == {"switch_layer": 1}
    assert several.request_id == "robot-7.1" and len(several.views) == 2 and not several.merge.prop_attn
    reading: Any = {"depth_invalid": [65535], "depth_scale": 1000}
    read = client.ask(QUESTION, IMAGE, DEPTH, method="tosa", alpha=[0.1, 0.2, 0.3], **reading)
    assert read.depth and read.depth.scale == 1000 and read.merge.alpha == (0.1, 0.2, 0.3)


def test_a_stream_brings_the_answer_in_pieces(served: Live, client: Client) -> None:
    whole = client.ask(QUESTION, IMAGE, max_new_tokens=12)
    with client.stream(QUESTION, IMAGE, max_new_tokens=12) as stream:
        with pytest.raises(BadResponse):
            _ = stream.answer
        pieces = list(stream)
        assert len(pieces) > 1 and "".join(pieces) == stream.answer.answer == whole.answer

    async def streamed(client: AsyncClient) -> Any:
        async with client.stream(QUESTION, IMAGE, max_new_tokens=12) as stream:
            return [piece async for piece in stream], stream.answer

    again, answer = awaited(served, streamed)
    assert again == pieces and what_was_said(answer) == what_was_said(stream.answer)


def test_a_stream_that_is_refused_is_an_error(client: Client) -> None:
    with pytest.raises(ServiceError) as refused, client.stream(QUESTION, IMAGE, method="tosb"):
        pass
    assert refused.value.code == "unknown_method" and refused.value.choices and "tosa" in str(refused.value)


def test_leaving_a_stream_cancels_it(served: Live, client: Client) -> None:
    with client.stream(QUESTION, IMAGE, max_new_tokens=200, temperature=2.0) as stream:
        next(iter(stream))
        assert served.in_flight == 1
    wait_for(lambda: served.in_flight == 0)


def test_a_comparison_has_answers_and_refusals(served: Live, client: Client) -> None:
    specs: Any = [
        {"method": "none"},
        {"method": "tome", "keep_ratio": 0.5},
        {"method": "tome", "r": [1, 2, 3, 4, 5]},
    ]
    found = client.compare(QUESTION, PIXELS, specs, VALUES, max_new_tokens=4)
    first, second, third = found.results
    assert isinstance(first, ComparedAnswer) and isinstance(second, ComparedAnswer)
    assert isinstance(third, ComparedRefusal) and third.error.code == "bad_merge_spec"
    assert (
        found.baseline == 0
        and found.agree[2] is None
        and second.merge.keep_ratio == pytest.approx(0.5, abs=0.1)
    )
    again = awaited(served, lambda one: one.compare(QUESTION, PIXELS, specs, VALUES, max_new_tokens=4))
    assert again.agree == found.agree


def test_depth_is_inspected_and_drawn(served: Live, client: Client) -> None:
    found = client.inspect_depth(VALUES, PIXELS, picture=True)
    assert (found.unit, found.format, found.dtype, found.same_aspect) == ("m", "npy", "uint16", True)
    assert found.picture is not None and found.picture.startswith(b"\x89PNG")
    assert client.inspect_depth(DEPTH, depth_preset="tum").preset == "tum"
    assert awaited(served, lambda one: one.inspect_depth(VALUES)).median == found.median
    with pytest.raises(ServiceError) as refused:
        client.inspect_depth(np.zeros((4, 4), np.uint16))
    assert refused.value.status == 422 and refused.value.field == "depth"


def test_merging_is_shown(served: Live, client: Client) -> None:
    shown = client.overlay(PIXELS, VALUES, method="tosa", keep_ratio=0.5, values_px=8, views="single")
    (view,) = shown.views
    assert shown.tokens[0] == 16 and shown.tokens[-1] == shown.merge.tokens_out == 8
    assert view.layers[-1].groups == view.groups and len(set(view.groups)) == len(view.layers[-1].sizes) == 8
    assert (
        view.depth and shown.values and len(shown.values.values) == shown.values.height * shown.values.width
    )
    assert client.overlay(PIXELS, method="none").views[0].groups == tuple(range(16))
    again = awaited(served, lambda one: one.overlay(PIXELS, method="none"))
    assert again.merge == client.overlay(PIXELS, method="none").merge


def test_an_answer_says_how_sure_it_is_if_asked(client: Client) -> None:
    sure = client.ask(QUESTION, IMAGE, confidence=True, max_new_tokens=2).confidence
    assert sure is not None and 0 < sure <= 1 and client.ask(QUESTION, IMAGE).confidence is None


def test_probes_and_methods(served: Live, client: Client) -> None:
    client.wait_until_ready()
    assert client.is_ready() and client.is_alive() and client.methods()["cubist"].keeps_grid
    assert awaited(served, lambda one: one.methods()) == client.methods()

    async def probes(client: AsyncClient) -> Any:
        await client.wait_until_ready()
        return await client.is_ready(), await client.is_alive()

    assert awaited(served, probes) == (True, True)
    with Client("http://127.0.0.1:9") as nobody:
        assert not nobody.is_ready() and not nobody.is_alive()
        with pytest.raises(DeadlineExceeded):
            nobody.wait_until_ready(timeout_s=0.05)


def test_one_connection_serves_many_requests(served: Live) -> None:
    seen: list[str] = []

    def count(name: str, _: Any) -> None:
        if name.endswith("connect_tcp.started"):
            seen.append(name)

    with Client(f"http://127.0.0.1:{served.port}") as client:
        client._http.event_hooks["request"] = [lambda request: request.extensions.update(trace=count)]
        for _ in range(3):
            client.ask(QUESTION, IMAGE, max_new_tokens=1)
        client.methods()
    assert len(seen) == 1


def test_a_busy_service_is_too_late(served: Live, client: Client) -> None:
    with served.busy() as release:
        with pytest.raises(ServiceError) as refused:
            client.ask(QUESTION, IMAGE, timeout_s=0.3)
        assert refused.value.code == "deadline_exceeded", (
            "the service itself says so, before the client gives up"
        )
        release.set()
    assert client.ask(QUESTION, IMAGE, timeout_s=PATIENCE_S).answer
