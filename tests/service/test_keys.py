"""Who asks: keys are read once and strictly, compared as digests, and never shown."""

from __future__ import annotations

import hashlib
import hmac
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import Headers

import service.keys as keys
from service.api.errors import headers_of, status_of
from service.errors import ServiceError
from service.keys import KeyRing
from service.settings import Settings

ROBOT, LAB = "r0b0t-s3cret=", "lab/s3cret+~!"
DIGEST = hashlib.sha256(LAB.encode()).hexdigest()


def ring(text: str | None = None, file: Path | None = None) -> KeyRing:
    return KeyRing.of(Settings(api_keys=None if text is None else SecretStr(text), api_keys_file=file))


@pytest.fixture(scope="module")
def two() -> KeyRing:
    return ring(f"robot={ROBOT}, lab=sha256:{DIGEST}")


def is_refused(ring: KeyRing, headers: dict[str, str] | Headers) -> bool:
    try:
        ring.identify(headers)
    except ServiceError as error:
        assert (error.code, status_of(error)) == ("unauthorized", 401)
        assert headers_of(error) == {"WWW-Authenticate": "Bearer"}
        return True
    return False


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": f"Bearer {ROBOT}"}, "robot"),
        ({"authorization": f"bearer  {ROBOT} "}, "robot"),
        ({"Authorization": f"BEARER {LAB}"}, "lab"),
        ({"x-api-key": ROBOT}, "robot"),
        ({"X-API-Key": LAB}, "lab"),
        ({"x-api-key": LAB, "authorization": f"Bearer {LAB}"}, "lab"),
        ({"x-api-key": LAB, "authorization": "Basic cHJveHk6cHJveHk="}, "lab"),
        ({"cookie": "a=b", "x-api-key": ROBOT, "accept": "*/*"}, "robot"),
    ],
    ids=str,
)
def test_a_key_is_known(two: KeyRing, headers: dict[str, str], name: str) -> None:
    assert two.identify(headers) == two.identify(Headers(headers)) == name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": ROBOT},
        {"authorization": f"Basic {ROBOT}"},
        {"authorization": f"Bearer{ROBOT}"},
        {"authorization": f"Bearer Bearer {ROBOT}"},
        {"authorization": f"Bearer {ROBOT} {ROBOT}"},
        {"authorization": f"Bearer {ROBOT[:-1]}"},
        {"authorization": f"Bearer {ROBOT}x"},
        {"authorization": f"Bearer {ROBOT.upper()}"},
        {"authorization": f"Bearer robot={ROBOT}"},
        {"authorization": "Bearer robot"},
        {"x-api-key": ""},
        {"x-api-key": "None"},
        {"x-api-key": DIGEST},
        {"x-api-key": f"sha256:{DIGEST}"},
        {"x-api-key": f"Bearer {ROBOT}"},
        {"x-api-key": f"{ROBOT},{LAB}"},
        {"x-api-key": f"{ROBOT}\0"},
        {"x-api-key": "ключ"},
        {"x-api-key": "cl\xe9"},
        {"x-api-key": "\udcff"},
        {"x-api-key": "x" * 1_000_000},
        {"authorization": "Bearer " + " " * 1_000_000 + "x"},
        {"api-key": ROBOT},
        {"cookie": f"x-api-key={ROBOT}"},
        {"x-api-key": ROBOT, "authorization": f"Bearer {LAB}"},
        {"x-api-key": "wrong", "authorization": f"Bearer {LAB}"},
        {"x-api-key": LAB, "authorization": "Bearer wrong"},
        {"x-api-key": LAB, "authorization": "Bearer "},
    ],
    ids=lambda headers: ascii(headers)[:60],
)
def test_anything_else_is_refused(two: KeyRing, headers: dict[str, str]) -> None:
    assert is_refused(two, headers)


def test_a_header_sent_twice_must_agree_with_itself(two: KeyRing) -> None:
    def sent(*secrets: str) -> Headers:
        return Headers(raw=[(b"x-api-key", secret.encode()) for secret in secrets])

    assert two.identify(sent(LAB, LAB)) == "lab"
    assert is_refused(two, sent(LAB, "wrong")) and is_refused(two, sent("wrong", LAB))
    assert is_refused(two, sent(LAB, ROBOT))


@given(st.dictionaries(st.sampled_from(["authorization", "x-api-key", "host"]), st.text()))
def test_no_header_breaks_anything(headers: dict[str, str]) -> None:
    assert is_refused(ring(f"robot={ROBOT}"), headers)


def test_without_keys_everybody_may_ask() -> None:
    assert ring().identify({}) is None
    assert ring().identify({"authorization": "Bearer whatever"}) is None
    assert ring().names == ()


def test_secrets_are_compared_to_the_end_and_as_digests(
    two: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return original(first, second)

    original = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    two.identify({"x-api-key": ROBOT})
    two.identify({"x-api-key": LAB})
    assert is_refused(two, {"x-api-key": "wrong"})
    assert len(compared) == 3 * len(two.names)
    assert {len(part) for pair in compared for part in pair} == {32}


def test_nothing_shows_a_secret(two: KeyRing) -> None:
    held = repr(two) + str(two) + f"{two}" + repr(vars(two))
    assert repr(two) == "KeyRing(robot, lab)"
    assert ROBOT not in held and LAB not in held and ROBOT not in repr(Settings(api_keys=SecretStr(ROBOT)))


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"lab={LAB}\n")
    monkeypatch.setenv("TOSA_VQA_API_KEYS", f"robot={ROBOT}")
    monkeypatch.setenv("TOSA_VQA_API_KEYS_FILE", str(tmp_path / "keys"))
    assert KeyRing.of(Settings()).names == ("robot", "lab")


def test_a_file_has_a_key_per_line(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(
        b"\xef\xbb\xbf# who may ask\r\n\r\n  robot=with,comma#and=signs  \r\n"
        + f"lab=sha256:{DIGEST.upper()}".encode()
    )
    read = ring(file=file)
    assert read.names == ("robot", "lab")
    assert read.identify({"x-api-key": "with,comma#and=signs"}) == "robot"
    assert read.identify({"x-api-key": LAB}) == "lab"


HUSH = "hush-hush"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "key 1"),
        ("  ", "key 1"),
        (HUSH, "key 1"),
        (f"robot={HUSH},", "key 2"),
        (f"robot={HUSH},{HUSH}2", "key 2"),
        (f"={HUSH}", "key 1"),
        ("robot=", "key 1"),
        (f"ro bot={HUSH}", "key 1"),
        (f"{'r' * 65}={HUSH}", "key 1"),
        (f"rob\xf6t={HUSH}", "key 1"),
        (f"robot={HUSH} {HUSH}", "key 1"),
        (f"robot={HUSH}\xe9", "key 1"),
        (f"robot={HUSH}\n{HUSH}", "key 1"),
        (f"robot={HUSH * 100}", "key 1"),
        (f"robot=sha256:{HUSH}", "sha256"),
        ("robot=sha256:", "sha256"),
        (f"robot=sha256:{DIGEST}0", "sha256"),
        (f"robot={HUSH},lab=1,robot=2", "key 3: this name"),
        (f"robot={HUSH},lab={HUSH}", "key 2: an earlier key"),
        (f"robot={LAB},lab=sha256:{DIGEST}", "key 2: an earlier key"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_malformed_is_refused_at_the_start(text: str, place: str) -> None:
    with pytest.raises(ValueError, match=place) as refusal:
        ring(text)
    assert_hushed(refusal.value)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"", "holds no key"),
        (b"\n# robot=hush-hush\n", "holds no key"),
        (b"robot=1\n\nhush-hush\n", "line 3"),
        (b"robot=hush-hush\nrobot=2\n", "line 2"),
        (b"robot=hush-hush\xff\n", "UTF-8"),
    ],
)
def test_a_malformed_file_is_refused_at_the_start(tmp_path: Path, content: bytes, place: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=place) as refusal:
        ring(file=file)
    assert_hushed(refusal.value)


def test_a_file_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ValueError, match="TOSA_VQA_API_KEYS_FILE: ") as refusal:
            ring(f"robot={HUSH}", path)
        assert_hushed(refusal.value)


def test_a_key_of_both_sources_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"robot={HUSH}")
    with pytest.raises(ValueError, match="line 1: this name"):
        ring("robot=other", tmp_path / "keys")
    with pytest.raises(ValueError, match="line 1: an earlier key"):
        ring(f"lab={HUSH}", tmp_path / "keys")


def assert_hushed(error: BaseException) -> None:
    shown = "".join(traceback.format_exception_only(error)) + repr(error)
    assert HUSH not in shown and DIGEST not in shown and LAB not in shown
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)


def test_a_refusal_that_quotes_is_found_out() -> None:
    with pytest.raises(AssertionError):
        assert_hushed(ValueError(f"{HUSH} is not name=secret"))
