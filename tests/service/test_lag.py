"""Nothing a client sends keeps the event loop busy: probes answer while bodies made to be slow are read.

The bound here is loose, for machines that others use too; the twin shows that it still catches work that is
done on the loop.
"""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.engine import Engine
from tests.depth.files import chunk, png8
from tests.service.conftest import Question
from tests.service.files import IMAGE, png_promising
from tests.service.lag import Lag, least_lag
from tests.service.live import Live, live, read_until

WORST_S = 0.5  # 0.25 is promised on a machine of its own
MANY = 1_000_000
JSON, FORM = "application/json", "multipart/form-data; boundary=b"
SIZE = 20 * 2**20
PART = b'--b\r\nContent-Disposition: form-data; name="question"\r\n\r\nhow many\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%s\r\n'


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Live]:
    with live(checkpoint, max_body_mib=48, max_queue=64, max_batch=8, max_image_px=2**24) as served:
        yield served


def question(text: str) -> bytes:
    return json.dumps({"question": text, "images": [base64.b64encode(IMAGE).decode()]}).encode()


def many_chunks() -> bytes:
    """A small picture with 200,000 chunks of one byte."""
    return IMAGE[:33] + chunk(b"tEXt", b"a") * 200_000 + IMAGE[33:]


def bomb(side: int = 13_000) -> bytes:
    """A picture of many equal pixels in few bytes."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    pixels = b"".join(packer.compress(row) for _ in range(64)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a million keys": (JSON, lambda: b"{" + b",".join(b'"%d":0' % at for at in range(MANY)) + b"}"),
    "a million keys inside": (JSON, lambda: b'{"options":{' + b",".join([b'"":0'] * MANY) + b"}}"),
    "30 MB of base64": (JSON, lambda: b'{"question":"x","images":["' + b"A" * 30_000_000 + b'"]}'),
    "30 MB of one text": (JSON, lambda: b'{"question":"' + b"\\u0041" * 5_000_000 + b'"}'),
    "deep": (JSON, lambda: b"[" * MANY),
    "digits": (JSON, lambda: b'{"seed":' + b"9" * MANY + b"}"),
    "spaces and letters": (JSON, lambda: question(" " * 19_000 + "!" + "a" * 20_000)),
    "half tokens": (JSON, lambda: question("<ima" * 400 + "<|im_" * 60)),
    "line ends in front": (FORM, lambda: b"\r\n" * (SIZE // 2) + PART),
    "line ends behind": (FORM, lambda: PART + FILE % IMAGE + b"--b--\r\n" + b"\r\n" * (SIZE // 2)),
    "nearly boundaries": (FORM, lambda: FILE % (b"\r\n--" * (SIZE // 4)) + b"--b--"),
    "10,000 part headers": (FORM, lambda: b"--b\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\nx\r\n--b--"),
    "one part header of 20 MB": (FORM, lambda: b"--b\r\nX-A: " + b"b" * SIZE + b"\r\n\r\nx\r\n--b--"),
    "1,001 parts": (FORM, lambda: FILE % b"x" * 1001 + b"--b--"),
    "many options": (FORM, lambda: PART[:39] + b"; " + b'a="b"; ' * 100_000 + b"\r\n\r\nx\r\n--b--"),
    "a bomb": (FORM, lambda: PART + FILE % bomb() + b"--b--"),
    "many chunks": (FORM, lambda: PART + FILE % many_chunks() + b"--b--"),
    "a promise": (FORM, lambda: PART + FILE % png_promising(60_000, 60_000) + b"--b--"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_made_to_be_slow(served: Live, name: str) -> None:
    kind, make = BODIES[name]
    body = make()

    def post() -> Lag:
        with Lag(served) as lag, ThreadPoolExecutor(1) as pool:
            posted = pool.submit(served.client.post, "/vqa", content=body, headers={"Content-Type": kind})
            while not posted.done():
                assert served.client.get("/livez").status_code == 200
                time.sleep(0.02)
            assert posted.result().status_code in (200, 400, 413, 422), posted.result().text
        return lag

    lag = least_lag(post, WORST_S)
    assert lag.worst_s < WORST_S, lag


def test_64_bombs_at_once(served: Live, question: Question) -> None:
    bodies = [PART + FILE % data + b"--b--" for data in (bomb(), many_chunks(), png_promising(9_000, 9_000))]
    within_s = 4 * WORST_S  # their decoding is work of this process too
    lag = least_lag(lambda: bombed(served, bodies), within_s)
    assert lag.worst_s < within_s, lag
    assert question.post(served.client, "json").status_code == 200


def bombed(served: Live, bodies: list[bytes]) -> Lag:
    """Send the last byte of 64 bodies at once."""
    with ExitStack() as stack:
        connections = [stack.enter_context(served.connect()) for _ in range(64)]
        for at, connection in enumerate(connections):
            body = bodies[at % 3]
            kind = f"Content-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(b"POST /vqa HTTP/1.1\r\nHost: x\r\n" + kind.encode() + body[:-1])
        with Lag(served) as lag:
            for connection in connections:
                connection.sendall(b"-")
            probes = [served.client.get("/livez").status_code for _ in range(20)]
            answers = [read_until(connection, b"}}", 30)[9:12] for connection in connections]
    assert set(answers) <= {b"413", b"422", b"200"} and set(probes) == {200}
    return lag


def test_200_idle_connections_are_no_burden(served: Live, question: Question) -> None:
    def crowd() -> Lag:
        with ExitStack() as stack, Lag(served) as lag:
            for at in range(200):
                connection = stack.enter_context(served.connect())
                connection.sendall(b"POST /vqa HTTP/1.1\r\nHost: x\r\nX-Tri"[: at % 40])
            for _ in range(3):
                assert served.client.get("/livez").status_code == 200
                assert question.post(served.client, "multipart").status_code == 200
        return lag

    lag = least_lag(crowd, WORST_S)
    assert lag.worst_s < WORST_S, lag


def test_decoding_on_the_loop_is_caught(served: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin."""

    async def here(_: Engine, work: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return work(*given, **named)

    monkeypatch.setattr(Engine, "decode", here)
    large = png8(np.zeros((4096, 4096, 3), np.uint8))
    body = PART + (FILE % large) * 3 + b"--b--"
    with Lag(served) as lag:
        response = served.client.post("/vqa", content=body, headers={"Content-Type": FORM})
    assert response.status_code == 200 and lag.worst_s > WORST_S, lag
