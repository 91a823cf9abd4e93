"""What a container costs is reckoned round by round, and a request may name its frame."""

from __future__ import annotations

from typing import Any

from bench.containers.price import ARMS, price
from bench.load.requests import Request


def run(round_: int, arm: str, alone_ms: float, answers_per_s: float) -> dict[str, Any]:
    return {
        "round": round_,
        "arm": arm,
        "alone_ms": alone_ms,
        "answers_per_s": answers_per_s,
        "lost": round_,
    }


def test_every_arm_is_compared_with_the_uncontained_server_of_its_round() -> None:
    slow = {"uncontained": 1.0, "hardened": 1.1, "compose": 1.25}
    runs = [
        run(round_, arm, base * slow[arm], 10 / base / slow[arm])
        for round_, base in enumerate((100.0, 400.0, 200.0))
        for arm in ARMS[round_:] + ARMS[:round_]
    ]
    told = price(runs)
    assert told["uncontained"] | {"latency_percent": 0.0, "throughput_percent": 0.0} == told["uncontained"]
    assert round(told["hardened"]["latency_percent"], 6) == round(told["hardened"]["latency_most"], 6) == 10
    assert round(told["compose"]["throughput_percent"], 6) == 20
    assert told["compose"]["alone_ms"] == 250 and told["compose"]["lost"] == 3


def test_a_request_names_its_frame_only_if_it_has_a_name() -> None:
    assert "X-Frame-ID" not in Request("/vqa", b"x").headers(None)
    assert Request("/vqa", b"x", frame_id="a1").headers("key")["X-Frame-ID"] == "a1"
