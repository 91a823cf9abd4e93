"""Pictures as each family sees them: the views of a request, what is said of them, and who shares a batch."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.request.schemas import VIEWS
from tests.depth.files import png16
from tests.loopback import wait_for
from tests.service.conftest import Question
from tests.service.live import Live, live
from tests.vlm.families import write_family
from tests.vlm.family_pictures import picture
from vlm import VIEWS as LIBRARY_VIEWS
from vlm.families.pictures import MOST_ASPECT

WIDE, TALL = (60, 96), (90, 50)
ONE_VIEW = {"count": 1, "tiles": [0, 0]}


def png(size: tuple[int, int], seed: int = 0, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(size, seed).save(buffer, "PNG", **options)
    return buffer.getvalue()


def depth(size: tuple[int, int]) -> bytes:
    metres = np.linspace(500, 6000, size[0] * size[1]).reshape(size)
    return png16(metres.astype(np.uint16))


def ask(size: tuple[int, int], seed: int = 0, number: int = 1, **fields: Any) -> Question:
    images = tuple(png(size, seed + at) for at in range(number))
    return Question(images, (depth(size),) * number).but(max_new_tokens=6, **fields)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Live]]:
    running = []

    @cache
    def serve(family: str) -> Live:
        folder = write_family(tmp_path_factory.mktemp(family), family)
        running.append(live(Path(folder), max_images=8, max_queue=16, frame_cache_mib=8))
        return running[-1].__enter__()

    yield serve
    for each in running:
        each.__exit__(None, None, None)


@pytest.mark.parametrize("family", ["llava_onevision", "internvl", "qwen3_vl"])
@pytest.mark.parametrize("method", ["none", "tosa", "cubist"])
def test_the_answer_says_how_pictures_were_seen(
    serve: Callable[[str], Live], family: str, method: str
) -> None:
    served = serve(family)
    keep: dict[str, Any] = {} if method == "none" else {"keep_ratio": 0.5}
    body = ask(WIDE, number=2, method=method, **keep).post(served.client, "json").json()
    assert "views" in body, body
    assert len(body["views"]) == 2
    counts = [view["tokens"] for view in body["views"]]
    assert all(count > 0 for count in counts) and sum(counts) < body["usage"]["prompt_tokens"]
    assert body["merge"]["saves"] == ([] if method == "none" else ["vit", "lm"])
    patches = sum(view["count"] * view["grid"][0] * view["grid"][1] for view in body["views"])
    assert patches % body["merge"]["tokens_in"] == 0


def test_one_picture_may_be_one_view_or_several(serve: Callable[[str], Live]) -> None:
    client = serve("llava_onevision").client
    single, anyres, auto, video = (
        ask(WIDE, views=views, method="tosa", keep_ratio=0.25).post(client, "multipart").json()
        for views in ("single", "anyres", "auto", "video")
    )
    assert single["views"][0] | ONE_VIEW == single["views"][0] and single["views"][0]["kind"] == "single"
    (several,) = anyres["views"]
    assert several["count"] == 1 + several["tiles"][0] * several["tiles"][1] > 1
    assert auto["views"] == anyres["views"] and auto["answer"] == anyres["answer"]
    assert video["views"][0]["kind"] == "video"
    assert single["usage"]["prompt_tokens"] < anyres["usage"]["prompt_tokens"]


def test_frames_of_a_video_are_one(serve: Callable[[str], Live]) -> None:
    client = serve("qwen3_vl").client
    body = ask(WIDE, number=4, views="video", method="tosa", keep_ratio=0.5).post(client, "json").json()
    (video,) = body["views"]
    assert (video["kind"], video["count"]) == ("video", 2), "two frames share a view"
    assert body["depth"]["source"] == "client"


def test_frames_of_a_video_have_one_size(serve: Callable[[str], Live]) -> None:
    client = serve("qwen3_vl").client
    question = Question((png(WIDE), png(TALL)), ()).but(views="video")
    error = question.post(client, "json").json()["error"]
    assert (error["code"], error["field"]) == ("unsupported_views", "views"), error


@pytest.mark.parametrize("views", ["anyres", "tiles"])
def test_views_that_a_model_has_not_are_refused_with_those_it_has(
    serve: Callable[[str], Live], views: str
) -> None:
    response = ask(WIDE, views=views).post(serve("qwen3_vl").client, "json")
    error = response.json()["error"]
    assert response.status_code == 422
    assert (error["code"], error["field"]) == ("unsupported_views", "views")
    assert {"auto", "single", "video"} <= set(error["choices"])


def test_a_picture_too_narrow_for_views_is_refused(serve: Callable[[str], Live]) -> None:
    error = ask((6, 2000), method="none").post(serve("qwen3_vl").client, "json").json()["error"]
    assert (error["code"], error["field"], error["limit"]) == ("unsupported_image", "image", MOST_ASPECT)
    assert "2000 x 6 px" in error["message"]


def converse(client: Any, *turns: Sequence[tuple[int, int] | str], **fields: Any) -> Any:
    """Send a conversation whose user turns hold images of these sizes, and texts."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        messages += [{"role": "assistant", "content": "2"}] if messages else []
        messages.append({"role": "user", "content": [part_of(part, at) for at, part in enumerate(turn)]})
    return client.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 3, **fields})


def part_of(part: tuple[int, int] | str, seed: int) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    data = base64.b64encode(png(part, seed)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


@pytest.mark.parametrize("family", ["llava_onevision", "internvl", "qwen3_vl"])
def test_a_conversation_about_a_video_reads_what_a_question_reads(
    serve: Callable[[str], Live], family: str
) -> None:
    client = serve(family).client
    chat = converse(client, [WIDE, WIDE, WIDE, "how many cubes ?"], views="video").json()
    assert "usage" in chat, chat
    frames = tuple(png(WIDE, at) for at in range(3))
    asked = (
        Question(frames, ())
        .but(views="video", question="how many cubes ?", max_new_tokens=3)
        .post(client, "json")
    )
    assert chat["views"] == asked.json()["views"]
    assert chat["usage"]["prompt_tokens"] == asked.json()["usage"]["prompt_tokens"]
    assert chat["choices"][0]["message"]["content"] == asked.json()["answer"]


def test_a_video_may_be_in_any_one_turn(serve: Callable[[str], Live]) -> None:
    client = serve("qwen3_vl").client
    for turns in (
        (["hello"], [WIDE, "what", WIDE, "happens ?"]),
        ([WIDE, WIDE, "what happens ?"], ["and then ?"]),
    ):
        assert len(converse(client, *turns, views="video").json()["views"]) == 1
    refused = converse(client, [WIDE, "what ?"], [WIDE, "and now ?"], views="video")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (422, "unsupported_views", "views")
    assert "one message" in error["message"]


def test_the_words_are_those_of_the_library() -> None:
    assert VIEWS == LIBRARY_VIEWS


def test_a_picture_that_its_file_turns_is_laid_out_upright(serve: Callable[[str], Live]) -> None:
    client = serve("qwen3_vl").client
    turned = Image.Exif()
    turned[0x0112] = 6
    lying, standing = (
        Question((image,), ()).but(method="none").post(client, "json").json()
        for image in (png(WIDE, exif=turned), png((WIDE[1], WIDE[0])))
    )
    assert lying["views"] == standing["views"]
    assert (
        lying["views"][0]["grid"]
        != Question((png(WIDE),), ()).post(client, "json").json()["views"][0]["grid"]
    )


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl", "gemma3"])
def test_pictures_of_all_sizes_answer_together_as_alone(serve: Callable[[str], Live], family: str) -> None:
    served = serve(family)
    questions = [
        ask(size, seed, method="tosa", keep_ratio=0.5, cache=False)
        for seed, size in enumerate([WIDE, TALL, WIDE, (64, 64)])
    ]
    alone = [question.post(served.client, "json").json()["answer"] for question in questions]
    with ThreadPoolExecutor(4) as pool, served.busy() as release:
        answers = [pool.submit(question.post, served.client, "json") for question in questions]
        wait_for(lambda: served.state.engine.model_thread.waiting == len(questions))
        release.set()
        together = [answer.result().json() for answer in answers]
    assert [body["answer"] for body in together] == alone
    assert max(body["batch_size"] for body in together) > 1


def test_a_cached_picture_is_that_of_its_views(serve: Callable[[str], Live]) -> None:
    client = serve("llava_onevision").client
    first, other, again = (
        ask(TALL, 50, views=views, method="tome", keep_ratio=0.5).post(client, "json").json()
        for views in ("single", "anyres", "single")
    )
    assert (first["cached"], other["cached"], again["cached"]) == (False, False, True)
    assert again["answer"] == first["answer"] and again["views"] == first["views"] != other["views"]


def test_frames_of_a_video_that_their_files_turn_are_seen_upright(serve: Callable[[str], Live]) -> None:
    client = serve("qwen3_vl").client
    turned = Image.Exif()
    turned[0x0112] = 6
    lying, standing = (
        Question(frames, ()).but(method="none", views="video").post(client, "json").json()
        for frames in (
            tuple(png(WIDE, at, exif=turned) for at in range(3)),
            tuple(png((WIDE[1], WIDE[0]), at) for at in range(3)),
        )
    )
    assert "views" in lying, lying
    assert lying["views"] == standing["views"]
    assert lying["usage"]["prompt_tokens"] == standing["usage"]["prompt_tokens"]
