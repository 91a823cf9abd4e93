"""What a key pays: for what was done for it, also if it did not wait for the answer or was refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.budgets import Budgets
from tests.depth.files import png8, png16
from tests.loopback import wait_for
from tests.service.conftest import Question
from tests.service.files import IMAGE
from tests.service.live import Live, live, raw_question, read_until

KEY = {"X-API-Key": "secret"}
MEGAPIXEL = png8(np.zeros((1000, 1000, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, api_keys="a=secret", key_units_per_minute=1e6) as served:
        served.client.headers.update(KEY)
        yield served


@pytest.fixture
def charged(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The units of every request that ended, in order."""
    units: list[float] = []
    charge = Budgets.charge

    def note(self: Budgets, key: str | None, spent: float) -> None:
        units.append(spent)
        charge(self, key, spent)

    monkeypatch.setattr(Budgets, "charge", note)
    return units


def test_an_answer_costs_its_pixels_and_tokens(
    served: Live, question: Question, charged: list[float]
) -> None:
    answer = question.post(served.client, "json").json()
    tokens = sum(answer["usage"].values())
    assert charged == [pytest.approx(2 * 48 * 64 / 1e6 + tokens / 100)]


def test_who_leaves_in_the_middle_of_a_stream_pays_for_what_came(
    served: Live, question: Question, charged: list[float]
) -> None:
    request = question.but(stream=True, max_new_tokens=100, temperature=2, seed=1)
    assert request.post(served.client, "json").status_code == 200
    with served.connect() as connection:
        connection.sendall(raw_question(request).replace(b"Host: x", b"Host: x\r\nX-API-Key: secret", 1))
        read_until(connection, b"event: text")
    wait_for(lambda: len(charged) == 2)
    assert charged[1] > 0.05, "the prompt at least was read"


def test_what_is_refused_before_it_is_decoded_costs_nothing(
    served: Live, question: Question, charged: list[float]
) -> None:
    wrong = question.but(images=(MEGAPIXEL,), depths=(), method="tome", keep_ratio=0.001)
    assert wrong.post(served.client, "json").status_code == 422
    assert charged == [0]


def test_decoding_is_paid_for_even_if_the_next_file_is_broken(
    served: Live, question: Question, charged: list[float]
) -> None:
    request = question.but(images=(MEGAPIXEL, IMAGE[:-20]), depths=())
    assert request.post(served.client, "json").status_code == 422
    assert charged == [pytest.approx(1.0)]


def test_an_inspection_is_paid_for(served: Live, charged: list[float]) -> None:
    depth = png16(np.arange(1, 250_001).reshape(500, 500) % 60_000 + 1)
    files = {"depth": depth, "image": MEGAPIXEL}
    response: httpx.Response = served.client.post("/depth/inspect", files=files)
    assert response.status_code == 200
    assert charged == [pytest.approx(1.25)]
