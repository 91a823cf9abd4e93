"""What the shipped proxy lets through, refuses, limits and passes on, asked over real sockets."""

from __future__ import annotations

import json
import re
import time
from itertools import pairwise

import httpx
import pytest

from tests.docker.door import CONFIGURATION, Door, exchange, opened, read_all
from tests.docker.replica import EVENT_GAP_S, Stub
from tests.loopback import PATIENCE_S, wait_for

PRIVATE = ("/metrics", "/docs", "/redoc", "/docs/swagger-ui.css", "/healthz", "/no/such/thing")
PUBLIC = ("/", "/methods", "/v1/models", "/livez", "/openapi.json", "/vqa", "/vqa/compare", "/depth/inspect")
PUBLIC += ("/vqa/overlay", "/rooms")
PUBLIC += ("/v1/models/room-tiny", "/v1/models/llava-hf/llava-onevision-qwen2-0.5b-ov-hf")


def refusal(response: httpx.Response | bytes) -> tuple[int, str]:
    """Return status and code of an error in our shape; everything else fails."""
    if isinstance(response, bytes):
        head, _, body = response.partition(b"\r\n\r\n")
        status, named = int(head.split()[1]), re.search(rb"(?im)^x-request-id: (\S+)\r?$", head)
        request_id = named[1].decode() if named else None
    else:
        status, body = response.status_code, response.content
        request_id = response.headers["x-request-id"]
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"] == request_id
    return status, error["code"]


def post(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: robot", f"Content-Length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", PUBLIC)
def test_public_addresses_reach_the_service(door: Door, stub: Stub, path: str) -> None:
    with door.client() as client:
        assert client.get(path, params={"a": "b"}).json()["replica"] == "one"
    assert stub.seen[-1] == ("GET", path)


@pytest.mark.parametrize("path", [path for path in PUBLIC if path != "/"])
def test_a_slash_at_the_end_is_taken_off(door: Door, stub: Stub, path: str) -> None:
    with door.client() as client:
        assert client.get(f"{path}/").status_code == 200
    assert stub.seen[-1] == ("GET", path)


@pytest.mark.parametrize("path", PRIVATE)
def test_other_addresses_are_not_there(door: Door, stub: Stub, path: str) -> None:
    before = len(stub.seen)
    with door.client() as client:
        response = client.get(path)
    assert refusal(response) == (404, "not_found")
    assert len(stub.seen) == before and "server" not in response.headers


@pytest.mark.parametrize(
    "request_line",
    [
        "GET //metrics", "GET //vqa", "GET /./metrics", "GET /vqa/../metrics", "GET /%6detrics",
        "GET /%2e/metrics",
        "GET /vqa/%2e%2e/metrics", "GET /vqa%2f..%2fmetrics", "GET /vqa;/../metrics", "GET /METRICS",
        "GET /v1/models/../metrics", "GET /v1/models/a/../../metrics", "GET /v1/models/a/b/c",
        "GET /v1/models/.",
        "GET /v1/models//a", "GET /v1/models/a%2f..", "GET http://a/metrics",
        "GET /metrics/", "GET /livez//", "GET /metrics?/livez", "GET /v1/../metrics", "GET /livez%00",
        "OPTIONS *", "CONNECT a:1", "GET \\metrics", "GET /livez\x01", "GET /metrics#/livez",
    ],
)  # fmt: skip
@pytest.mark.parametrize("host", ["robot", "a?b/c@d", "x/livez?", "/livez", "a b", ""])
def test_no_spelling_of_address_and_host_opens_a_private_one(
    door: Door, stub: Stub, request_line: str, host: str
) -> None:
    before = len(stub.seen)
    with door.connect() as connection:
        raw = f"{request_line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        answer = exchange(connection, raw.encode())
    assert re.match(rb"HTTP/1.[01] (400|404) ", answer), answer
    assert len(stub.seen) == before


def test_the_list_of_tricks_can_fail(door: Door, stub: Stub) -> None:
    before = len(stub.seen)
    with door.connect() as connection:
        raw = b"GET http://robot/livez?x HTTP/1.1\r\nHost: robot\r\nConnection: close\r\n\r\n"
        assert b" 200 " in exchange(connection, raw)
    assert len(stub.seen) == before + 1


@pytest.mark.parametrize("host", ["a?b/c@d", "x/livez?", "/livez"])
def test_a_forged_host_is_refused_at_a_public_address_too(door: Door, host: str) -> None:
    with door.connect() as connection:
        raw = f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert refusal(exchange(connection, raw.encode())) == (400, "bad_request")


def test_the_request_id_is_passed_or_made(door: Door, stub: Stub) -> None:
    with door.client() as client:
        kept = client.get("/livez", headers={"X-Request-ID": "robot-7.a_b"})
        assert kept.headers["x-request-id"] == stub.headers["x-request-id"] == "robot-7.a_b"
        for bad in ('a"b', "a b", "x" * 65, "a,b"):
            made = client.get("/livez", headers={"X-Request-ID": bad}).headers["x-request-id"]
            assert re.fullmatch(r"[0-9a-f-]{36}", made) and stub.headers["x-request-id"] == made
            assert refusal(client.get("/metrics", headers={"X-Request-ID": bad})) == (404, "not_found")


def test_no_client_says_where_it_comes_from(door: Door, stub: Stub) -> None:
    with door.client() as client:
        client.get("/livez", headers={"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"})
    assert stub.headers["x-forwarded-for"] == "127.0.0.1" and "forwarded" not in stub.headers


@pytest.mark.parametrize(("wish", "status", "wait"), [("busy", 503, "7"), ("budget", 429, "11")])
def test_refusals_of_the_service_pass_unchanged_and_once(
    door: Door, stub: Stub, wish: str, status: int, wait: str
) -> None:
    before = len(stub.seen)
    with door.client() as client:
        response = client.post("/vqa", content=b"x", headers={"X-Do": wish})
    assert (response.status_code, response.headers["retry-after"]) == (status, wait)
    assert set(response.json()["error"]) == {"code"} and "server" not in response.headers
    assert len(stub.seen) == before + 1


def test_a_body_too_large_is_refused_before_it_is_read(door: Door, stub: Stub) -> None:
    before = len(stub.seen)
    with door.client() as client:
        assert refusal(client.post("/vqa", content=bytes(34 * 2**20))) == (413, "body_too_large")
        assert len(stub.seen) == before
        assert client.post("/vqa", content=bytes(33 * 2**20)).json()["size"] == 33 * 2**20


@pytest.mark.parametrize("size", [0, 1, 900_000, 917_504, 1_100_000, 4_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_every_size_arrive_whole(door: Door, size: int, is_chunked: bool) -> None:
    body = bytes(size)
    parts = [body[start : start + 70_001] for start in range(0, size, 70_001)]
    with door.client() as client:
        content = iter(parts) if is_chunked else body
        assert client.post("/vqa", content=content).json()["size"] == size


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(post("/vqa", 3, "Expect: 100-continue", "Connection: close"))
        assert connection.recv(4096).startswith(b"HTTP/1.1 100")
        assert b'"size": 3' in exchange(connection, b"abc")


def test_long_addresses_and_headers_are_refused(door: Door) -> None:
    with door.client() as client:
        assert refusal(client.get("/livez?" + "a" * 5000)) == (414, "address_too_long")
        many = {f"X-A{number}": "b" * 1000 for number in range(20)}
        assert refusal(client.get("/livez", headers=many)) == (431, "headers_too_large")
        few = {f"X-A{number}": "b" * 1000 for number in range(10)}
        assert client.get("/livez", headers=few).status_code == 200


def test_a_trickling_body_is_closed_and_never_reaches_the_service(door: Door, stub: Stub) -> None:
    """By the limit of bodies: bytes come all the time, so that no other limit is ever reached."""
    before, start = len(stub.seen), time.monotonic()
    with door.connect(timeout_s=0.1) as connection:
        connection.sendall(post("/vqa", 1_000_000))
        answer = b""
        while not answer and time.monotonic() < start + PATIENCE_S:
            connection.sendall(b"x")
            answer = read_all(connection)
    assert refusal(answer) == (408, "request_timeout")
    assert time.monotonic() - start > 1.5 and len(stub.seen) == before


def test_an_answer_that_does_not_come_is_given_up(door: Door, stub: Stub) -> None:
    gone = stub.gone
    with opened(door.names, door.upstream_port, PROXY_ANSWER_TIMEOUT="1s") as hasty:
        wait_for(hasty.is_up)
        with hasty.client() as client:
            response = client.post("/vqa", content=b"x", headers={"X-Do": "slow"})
        assert refusal(response) == (504, "deadline_exceeded")
        wait_for(lambda: stub.gone == gone + 1)


def test_events_arrive_one_by_one(door: Door) -> None:
    times = []
    with door.client() as client, client.stream("POST", "/vqa", headers={"X-Do": "events"}) as stream:
        for _ in filter(None, stream.iter_lines()):
            times.append(time.monotonic())
    gaps = [later - sooner for sooner, later in pairwise(times)]
    assert len(times) == 4 and min(gaps) > EVENT_GAP_S / 2


@pytest.mark.parametrize("wish", ["slow", "many events"])
def test_a_client_that_leaves_is_seen_by_the_service(door: Door, stub: Stub, wish: str) -> None:
    wait_for(lambda: stub.in_flight == 0)
    gone = stub.gone
    with door.connect() as connection:
        connection.sendall(post("/vqa", 1, f"X-Do: {wish}") + b"x")
        wait_for(lambda: stub.in_flight == 1)
        time.sleep(0.4)
        assert stub.gone == gone
    wait_for(lambda: stub.gone == gone + 1, 30)  # sooner than the proxy gives up the answer


def test_what_prometheus_reads_is_on_another_port(door: Door) -> None:
    own = f"http://127.0.0.1:{door.own_port}"
    with httpx.Client(base_url=own, trust_env=False) as client:
        assert client.get("/healthz").text == "ok"
        assert "haproxy_server_status" in client.get("/metrics").text
        assert client.get("/livez").status_code == 404


def shipped() -> dict[str, str]:
    text = CONFIGURATION.read_text(encoding="utf-8")
    found = dict(re.findall(r"presetenv (\w+) \"([^\"]+)\"", text))
    return found | dict(re.findall(r"acl (\w+) path -m str (.+)", text))


def test_the_shipped_limits_are_those_promised() -> None:
    values = shipped()
    assert values["PROXY_HEADER_TIMEOUT"] == "5s"
    assert int(values["PROXY_BODY_TIMEOUT"].removesuffix("s")) <= 30
