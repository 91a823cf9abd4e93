"""Episodes through the client: begun, pushed to, asked, moved, shown, ended; and what is not sent twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from tests.service.episodes import RULE, walk
from tests.service.live import Live
from tosa_vqa_client import AsyncClient, Client, ConnectionFailed, Retries, ServiceError

QUESTION: Any = {"question": "how many cubes ?", "max_new_tokens": 4}


def test_an_episode_from_its_beginning_to_its_end(client: Client) -> None:
    rule: Any = {"merge_frames": "cover", "max_visual_tokens": 24, **RULE}
    begun = client.begin_episode(**rule, method="none")
    assert begun.id in client.episodes() and begun.frames == 0 and begun.fields["max_visual_tokens"] == 24
    for at, (image, depth, pose) in enumerate(walk(12)[:3]):
        taken = client.push_frame(begun.id, image, depth, pose=pose, timestamp=0.5 * at)
        assert taken.frame == at and taken.placed > 0 and taken.timings_ms.vision is not None
    answer = client.ask_episode(begun.id, **QUESTION, places=True, confidence=True)
    assert answer.episode and answer.episode.visual_tokens == 24 and answer.confidence
    walk_ = answer.episode.walk
    assert walk_ and len(walk_.cameras) == 3 and all(token.attention for token in walk_.tokens)
    assert client.ask_episode(begun.id, **QUESTION).answer == answer.answer
    moved = client.move_frames(begun.id, {0: walk(12)[1][2]})
    assert moved.frames == 3 and moved.walk is None
    state = client.episode(begun.id, places=True)
    assert state.walk and state.walk.cameras[0].position == state.walk.cameras[1].position
    client.end_episode(begun.id)
    assert begun.id not in client.episodes()
    with pytest.raises(ServiceError, match="episode_not_found"):
        client.episode(begun.id)


def test_the_calls_of_both_clients_are_the_same(served: Live, client: Client) -> None:
    plain = client.begin_episode()
    image, depth, pose = walk(12)[0]

    async def run() -> None:
        async with AsyncClient(f"http://127.0.0.1:{served.port}") as other:
            rule: Any = RULE
            begun = await other.begin_episode(**rule, merge_frames="seen")
            assert (await other.push_frame(begun.id, image, depth, pose=pose)).frames == 1
            assert (await other.ask_episode(begun.id, **QUESTION)).episode
            await other.move_frames(begun.id, {0: pose}, convention="opengl")
            assert (await other.episode(begun.id)).merge_frames == "seen"
            assert {plain.id, begun.id} <= set(await other.episodes())
            await other.end_episode(begun.id)

    anyio.run(run)
    client.end_episode(plain.id)
    assert plain.id not in client.episodes()


def failing(failures: int, make: Callable[[], Exception]) -> tuple[httpx.MockTransport, list[str]]:
    seen: list[str] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(f"{request.method} {request.url.path}")
        if len(seen) <= failures:
            raise make()
        return httpx.Response(200, json={"request_id": "r", "episodes": [], "deleted": "x"})

    return httpx.MockTransport(respond), seen


def test_what_changes_an_episode_is_not_sent_twice_when_a_connection_is_lost() -> None:
    image, _, _ = walk(12)[0]
    calls: tuple[Callable[[Client], Any], ...] = (
        lambda one: one.push_frame("a", image),
        lambda one: one.begin_episode(),
        lambda one: one.end_episode("a"),
    )
    for call in calls:
        transport, seen = failing(1, lambda: httpx.ReadError("reset"))
        with pytest.raises(ConnectionFailed), Client(transport=transport) as one:
            call(one)
        assert len(seen) == 1
    transport, seen = failing(1, lambda: httpx.ReadError("reset"))
    with Client(transport=transport, retries=Retries(attempts=2)) as one:
        assert one.episodes() == () and seen == ["GET /episodes"] * 2


def test_a_push_that_was_refused_for_now_is_sent_again(served: Live, client: Client) -> None:
    """The service took nothing in, and says when to come again."""
    seen: list[int] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(len(request.content))
        error = {"code": "overloaded", "message": "Too much to do.", "request_id": "r"}
        return httpx.Response(503, json={"error": error}, headers={"Retry-After": "0"})

    with (
        Client(transport=httpx.MockTransport(respond), retries=Retries(attempts=3)) as one,
        pytest.raises(ServiceError, match="Too much to do"),
    ):
        one.push_frame("a", walk(12)[0][0])
    assert len(seen) == 3
