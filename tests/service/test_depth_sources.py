"""Where depth comes from: a file, the estimator, or nowhere; and that the response says what happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from depth.estimate_cache import EstimateCache
from service.api.state import ServiceState
from service.pipeline.estimation import Estimation
from service.pipeline.frame_cache import FrameCache
from service.pipeline.models import Models
from service.pipeline.response_models import VqaResponse
from tests.depth.estimators import Fake
from tests.depth.files import npy, png8, png16
from tests.service.conftest import Question, running
from tests.service.files import DEPTH, IMAGE, PIXELS
from tests.service.test_refusals import check
from tosa import METHODS

MILLIMETRES = np.random.default_rng(1).integers(300, 9000, (48, 64)).astype(np.uint16)


def ask(client: TestClient, question: Question, form: str = "json") -> dict[str, Any]:
    response = question.post(client, form)
    assert response.status_code == 200, response.text
    VqaResponse.model_validate(response.json())
    return response.json()


def picture(seed: int) -> bytes:
    """An image that nobody has asked about before."""
    return png8(np.random.default_rng(seed).integers(0, 256, (48, 64, 3)))


@contextmanager
def estimating(client: TestClient, answer: Callable[[Image.Image], Any]) -> Iterator[Fake]:
    """Put an estimator whose answer is given into the running service."""
    state = client.app.state.service  # type: ignore[attr-defined]
    loaded, fake = state.models(), Fake(answer)
    _use(state, Models(loaded.vlm, Estimation(fake, EstimateCache(1 << 20)), FrameCache(0)))
    try:
        yield fake
    finally:
        _use(state, loaded)


def _use(state: ServiceState, models: Models) -> None:
    state._models = models
    state.engine.use(models)


def ramp(_: Image.Image) -> np.ndarray:
    return np.linspace(0, 1, 16).reshape(4, 4)


def test_a_frame_without_depth_is_estimated(client: TestClient, question: Question, form: str) -> None:
    request = question.but(images=(picture(1 if form == "json" else 2),), depths=(), method="tosa")
    response = request.post(client, form)
    answer = response.json()
    depth, timings = answer["depth"], answer["timings_ms"]
    assert (depth["source"], depth["kind"], depth["unit"], depth["scale"]) == (
        "estimate",
        "inverse",
        None,
        None,
    )
    assert (depth["valid_ratio"], depth["guessed"], depth["cached"]) == (1.0, [], False)
    assert depth["range"][0] > depth["range"][1] >= 0
    assert depth["estimator"]["id"] == "tiny-depth" and depth["estimator"]["licence"] == "apache-2.0"
    assert len(depth["estimator"]["revision"]) == 16
    assert timings["estimate"] > 0 and timings["depth"] > 0
    assert sum(ms for stage, ms in timings.items() if stage != "total") == pytest.approx(
        timings["total"], abs=0.01
    )
    assert "estimate;dur=" in response.headers["server-timing"]


def test_the_same_picture_is_estimated_once(client: TestClient, question: Question) -> None:
    request = question.but(images=(picture(3),), depths=(), method="tosa")
    first, again = ask(client, request), ask(client, request.but(question="where is it ?"))
    assert (first["depth"]["cached"], again["depth"]["cached"]) == (False, True)
    assert first["depth"]["range"] == again["depth"]["range"] and again["timings_ms"]["estimate"] > 0
    both = ask(client, request.but(images=(picture(3), picture(4))))
    assert both["depth"]["cached"] is False
    assert ask(client, request.but(images=(picture(4), picture(3))))["depth"]["cached"] is True


def test_the_cache_goes_by_pixels_not_by_files(client: TestClient, question: Question) -> None:
    pixels = np.asarray(Image.fromarray(PIXELS).rotate(180))
    request = question.but(depths=(), method="tosa")
    ask(client, request.but(images=(png8(pixels),)))
    other_file = png8(np.dstack([pixels, np.full((48, 64, 1), 255)]))  # with alpha, the same colours
    assert ask(client, request.but(images=(other_file,)))["depth"]["cached"] is True


def test_no_cache_if_none_is_wanted(checkpoint: Path, estimator: Path, question: Question) -> None:
    with running(checkpoint, depth_model=estimator, depth_size_px=56, depth_cache_mib=0) as client:
        for _ in range(2):
            assert ask(client, question.but(depths=(), method="tosa"))["depth"]["cached"] is False


def test_nothing_is_estimated_that_nobody_needs(client: TestClient, question: Question, form: str) -> None:
    with estimating(client, ramp) as fake:
        for request in (
            question.but(method="none", depth="estimate"),
            question.but(method="tome", depth="estimate", depths=()),
            question.but(depths=()),
            question,
            question.but(depth="none", method="tosa"),
        ):
            answer = ask(client, request, form)
            assert answer["timings_ms"]["estimate"] is None
            assert answer["depth"] is None or answer["depth"]["source"] != "estimate"
        assert fake.asked == []
        assert ask(client, question.but(depths=(), method="tosa"), form)["depth"]["source"] == "estimate"
        assert fake.asked == [1]


def test_estimate_asked_for_makes_tosa_the_default(client: TestClient, question: Question, form: str) -> None:
    answer = ask(client, question.but(depths=(), depth="estimate"), form)
    assert (answer["merge"]["method"], answer["depth"]["source"]) == ("tosa", "estimate")
    assert ask(client, question.but(depths=()), form)["merge"]["method"] == "none"


def test_estimate_asked_for_leaves_files_aside_but_not_unchecked(
    client: TestClient, question: Question, form: str
) -> None:
    answer = ask(client, question.but(depth="estimate"), form)
    assert answer["depth"]["source"] == "estimate"
    without = ask(client, question.but(depth="estimate", depths=()), form)
    assert answer["answer"] == without["answer"] and answer["depth"]["range"] == without["depth"]["range"]
    broken = question.but(depth="estimate", depths=(DEPTH[:-50],))
    check(broken.post(client, form), 422, "depth_truncated", "depth")


def test_a_service_that_estimates_nothing_names_what_else_there_is(
    blind_client: TestClient, question: Question, form: str
) -> None:
    request = question.but(depths=(), method="tosa")
    error = check(request.post(blind_client, form), 422, "depth_required", "depth")
    assert error["choices"] == [name for name, method in METHODS.items() if not method.needs_spatial]
    assert "depth=none" in error["message"] and "estimates none" in error["message"]
    for method in ("tosa", "none"):
        off = question.but(method=method, depth="estimate").post(blind_client, form)
        assert check(off, 422, "estimate_off", "depth")["choices"] == ["client", "none"]
    assert ask(blind_client, question, form)["depth"]["source"] == "client"
    assert ask(blind_client, request.but(depth="none"), form)["depth"]["source"] == "none"


def test_an_estimate_that_fails_says_so_and_is_logged(
    client: TestClient, question: Question, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = question.but(depths=(), method="tosa")
    with estimating(client, lambda _: np.full((4, 4), np.nan)):
        check(request.post(client, form), 500, "estimate_failed", "depth")
    assert "the depth estimator gave values that are not finite" in caplog.text
    assert ask(client, request, form)["depth"]["source"] == "estimate"


def test_estimates_are_made_in_the_model_thread(client: TestClient, question: Question) -> None:
    threads = []

    def note(image: Image.Image) -> np.ndarray:
        threads.append(threading.current_thread().name)
        return ramp(image)

    with estimating(client, note):
        ask(client, question.but(depths=(), method="tosa"))
    assert [name.split("_")[0] for name in threads] == ["model"]


def test_a_scannet_png_is_the_same_as_its_metres(client: TestClient, question: Question, form: str) -> None:
    metres = npy((MILLIMETRES / 1000).astype(np.float32))
    png = question.but(depths=(png16(MILLIMETRES),), depth_preset="scannet", keep_ratio=0.5)
    one, other = ask(client, png, form), ask(client, question.but(depths=(metres,), keep_ratio=0.5), form)
    assert (one["answer"], one["merge"]) == (other["answer"], other["merge"])
    assert one["depth"]["range"] == other["depth"]["range"]
    assert (one["depth"]["preset"], one["depth"]["scale"], one["depth"]["guessed"]) == ("scannet", 1000, [])
    assert [guess["field"] for guess in other["depth"]["guessed"]] == ["kind", "scale"]


@pytest.mark.parametrize(
    ("given", "kind", "unit", "scale"),
    [
        ({"depth_scale": 5000}, "metric", "m", 5000),
        ({"depth_preset": "tum"}, "metric", "m", 5000),
        ({"depth_preset": "realsense:0.001"}, "metric", "m", 1000),
        ({"depth_preset": "auto", "depth_scale": 2000}, "metric", "m", 2000),
        ({"depth_kind": "metric", "depth_scale": 500}, "metric", "m", 500),
        ({"depth_kind": "inverse"}, "inverse", None, None),
        ({"depth_kind": "inverse", "depth_scale": 1000}, "inverse", "1/m", 1000),
        ({"depth_kind": "relative", "depth_invalid": [0, 8999]}, "relative", None, None),
    ],
    ids=str,
)
def test_what_is_said_is_done_and_nothing_is_guessed(
    client: TestClient,
    question: Question,
    form: str,
    given: dict[str, Any],
    kind: str,
    unit: str | None,
    scale: float | None,
) -> None:
    depth = ask(client, question.but(depths=(png16(MILLIMETRES),), **given), form)["depth"]
    assert (depth["kind"], depth["unit"], depth["scale"], depth["guessed"]) == (kind, unit, scale, [])


def test_named_holes_are_masked(client: TestClient, question: Question, form: str) -> None:
    holey = MILLIMETRES.copy()
    holey[:12] = 65535
    request = question.but(depths=(png16(holey),), depth_scale=1000)
    assert ask(client, request, form)["depth"]["valid_ratio"] == 1
    depth = ask(client, request.but(depth_invalid=[65535]), form)["depth"]
    assert depth["valid_ratio"] == 0.75 and depth["range"][1] < 9
    if form == "multipart":
        assert ask(client, request.but(depth_invalid="65535"), form)["depth"]["valid_ratio"] == 0.75


def test_a_guess_about_a_grey_picture_is_said(client: TestClient, question: Question, form: str) -> None:
    depth = ask(client, question.but(depths=(png8(MILLIMETRES // 40),)), form)["depth"]
    assert (depth["kind"], depth["unit"], depth["scale"]) == ("relative", None, None)
    assert [guess["field"] for guess in depth["guessed"]] == ["kind", "polarity"]
    assert all(guess["sentence"].endswith(".") for guess in depth["guessed"])


def test_several_images_are_summed_up_honestly(client: TestClient, question: Question, form: str) -> None:
    metres, grey = npy(MILLIMETRES.astype("f4") / 500), png8(MILLIMETRES // 40)
    request = question.but(images=(IMAGE, IMAGE), keep_ratio=0.5)
    alike = ask(client, request.but(depths=(png16(MILLIMETRES), metres)), form)["depth"]
    assert (alike["kind"], alike["unit"], alike["scale"]) == ("metric", "m", None)
    ends = MILLIMETRES.min() / 1000, MILLIMETRES.max() / 500
    assert alike["range"] == [pytest.approx(end, rel=1e-5) for end in ends]
    assert len(alike["guessed"]) == 3  # the kind once, two units
    mixed = ask(client, request.but(depths=(png16(MILLIMETRES), grey)), form)["depth"]
    assert (mixed["kind"], mixed["unit"], mixed["range"]) == ("mixed", None, None)


def test_threads_with_different_depth_get_what_they_would_get_alone(
    checkpoint: Path, estimator: Path, question: Question
) -> None:
    sources: list[dict[str, Any]] = [
        {"method": "none"},
        {"method": "tosa", "depth": "none"},
        {"method": "tosa", "depth": "estimate"},
        {"depth_preset": "scannet"},
        {"depth_kind": "inverse"},
        {"depths": (), "method": "tosa", "images": (picture(7),)},
        {"depths": (npy(MILLIMETRES.astype("f4") / 1000),), "keep_ratio": 0.5},
        {"depths": (png8(MILLIMETRES // 40),)},
    ]
    with running(checkpoint, depth_model=estimator, depth_size_px=56, max_queue=16) as client:

        def described(source: dict[str, Any]) -> tuple[Any, ...]:
            answer = ask(client, question.but(**source))
            depth = answer["depth"] and {k: v for k, v in answer["depth"].items() if k != "cached"}
            return answer["answer"], answer["merge"], depth

        alone = [described(source) for source in sources]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(described, sources * 4))
    assert together == alone * 4


def test_estimates_are_remembered_for_the_key_they_were_made_for(
    checkpoint: Path, estimator: Path, question: Question
) -> None:
    request = question.but(images=(picture(77),), depths=(), method="tosa")
    keys = {"api_keys": "a=secret-a,b=secret-b", "depth_model": estimator, "depth_size_px": 56}
    with running(checkpoint, **keys) as client:

        def cached(key: str, **changes: Any) -> bool:
            client.headers["X-API-Key"] = key
            return ask(client, request.but(**changes))["depth"]["cached"]

        assert not cached("secret-a", cache=False)
        assert not cached("secret-a"), "cache=false leaves nothing behind"
        assert cached("secret-a")
        assert not cached("secret-a", cache=False), "and takes nothing"
        assert not cached("secret-b"), "nobody learns what others asked about"
