"""The client for asyncio and trio; the same calls as `Client`, to be awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TypeVar, Unpack

import anyio
import anyio.to_thread
import httpx

from tosa_vqa_client.calls import Form, chunks, comparison_form, inspection_form, overlay_form, question_form
from tosa_vqa_client.client import POLL_S
from tosa_vqa_client.connecting import client_error, http_options, timeouts
from tosa_vqa_client.episodes import (
    begin_form,
    end_form,
    episode_question_form,
    list_form,
    move_form,
    push_form,
    state_form,
)
from tosa_vqa_client.errors import ClientError
from tosa_vqa_client.files import Depth, Image
from tosa_vqa_client.options import (
    AskOptions,
    CompareOptions,
    EpisodeAskOptions,
    EpisodeOptions,
    InspectOptions,
    MergeOptions,
    OverlayOptions,
    Pose,
    PushOptions,
)
from tosa_vqa_client.progress import Progress
from tosa_vqa_client.responses import Events, raise_refusal, result_of
from tosa_vqa_client.results import (
    Answer,
    Comparison,
    DepthInspection,
    EpisodeState,
    FrameTaken,
    Methods,
    Overlay,
)
from tosa_vqa_client.retries import Attempts, Retries

Result = TypeVar("Result")


class AsyncAnswerStream:
    """Iterate over the pieces of an answer as they come; `answer` is the whole of it after the last one."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines, self._events = lines, Events()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the pieces. Raises ServiceError if the service fails meanwhile."""
        async for line in self._lines:
            piece = self._events.feed(line)
            if piece is not None:
                yield piece

    @property
    def answer(self) -> Answer:
        """Return the whole answer. Raises BadResponse before the last piece."""
        return self._events.whole()


class AsyncClient:
    """Ask a service over HTTP; arguments, results and errors are those of `Client`.

    Files are read and arrays encoded in a thread. A call that is cancelled is cancelled in the service too.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float | None = 60.0,
        retries: Retries | None = None,
        trust_env: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url, self.timeout_s, self.retries = url.rstrip("/"), timeout_s, retries or Retries()
        self._http = httpx.AsyncClient(**http_options(self.url, api_key, trust_env), transport=transport)

    async def __aenter__(self) -> AsyncClient:
        """Return the client; its connections are closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def ask(
        self,
        question: str,
        images: Image | Sequence[Image],
        depth: Depth | Sequence[Depth] | None = None,
        **options: Unpack[AskOptions],
    ) -> Answer:
        """Answer a question about one image or several, each with its depth or all without."""
        return await self._post(lambda: question_form(question, images, depth, options))

    @asynccontextmanager
    async def stream(
        self,
        question: str,
        images: Image | Sequence[Image],
        depth: Depth | Sequence[Depth] | None = None,
        **options: Unpack[AskOptions],
    ) -> AsyncIterator[AsyncAnswerStream]:
        """Answer a question piece by piece; leaving the block early cancels it in the service."""
        form = await anyio.to_thread.run_sync(
            lambda: question_form(question, images, depth, options, stream=True)
        )
        attempts = self._attempts(form)
        response = await self._tried(attempts, lambda: self._opened(form, attempts))
        try:
            yield AsyncAnswerStream(response.aiter_lines())
        except httpx.TransportError as error:
            raise client_error(error, attempts, self.url) from error
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def compare(
        self,
        question: str,
        images: Image | Sequence[Image],
        specs: Sequence[MergeOptions],
        depth: Depth | Sequence[Depth] | None = None,
        **options: Unpack[CompareOptions],
    ) -> Comparison:
        """Answer one question with several merge settings and one upload."""
        return await self._post(lambda: comparison_form(question, images, specs, depth, options))

    async def inspect_depth(
        self, depth: Depth, image: Image | None = None, **options: Unpack[InspectOptions]
    ) -> DepthInspection:
        """Report how the service reads a depth file, and with picture=True draw it."""
        return await self._post(lambda: inspection_form(depth, image, options))

    async def overlay(
        self, image: Image, depth: Depth | None = None, **options: Unpack[OverlayOptions]
    ) -> Overlay:
        """Show which patches of a picture become one token, layer by layer; no question is answered."""
        return await self._post(lambda: overlay_form(image, depth, options))

    async def begin_episode(self, **options: Unpack[EpisodeOptions]) -> EpisodeState:
        """Begin an episode, whose frames come one by one; its `id` names it."""
        return await self._post(lambda: begin_form(options))

    async def push_frame(
        self, episode: str, image: Image, depth: Depth | None = None, **options: Unpack[PushOptions]
    ) -> FrameTaken:
        """Encode a frame and take its tokens into an episode.

        It is not sent again after a lost connection: `episode` says how many frames came.
        """
        return await self._post(lambda: push_form(episode, image, depth, options))

    async def ask_episode(self, episode: str, question: str, **options: Unpack[EpisodeAskOptions]) -> Answer:
        """Answer a question about an episode from the tokens that it holds; nothing is encoded."""
        return await self._post(lambda: episode_question_form(episode, question, options))

    async def move_frames(
        self, episode: str, poses: Mapping[int, Pose], convention: str | None = None
    ) -> EpisodeState:
        """Give frames of an episode new poses, by their numbers, as after a loop closure."""
        return await self._post(lambda: move_form(episode, poses, convention))

    async def episode(self, episode: str, places: bool = False) -> EpisodeState:
        """Describe an episode, and with `places` where its cameras and tokens are."""
        return await self._post(lambda: state_form(episode, places))

    async def episodes(self) -> tuple[str, ...]:
        """Return the ids of all episodes of the key."""
        return (await self._post(list_form)).episodes

    async def end_episode(self, episode: str) -> None:
        """Delete an episode."""
        await self._post(lambda: end_form(episode))

    async def methods(self) -> Methods:
        """List the merging methods, their options, and the defaults of a request."""
        attempts = Attempts(self.retries, self.timeout_s)

        async def once() -> Methods:
            return result_of(Methods, await self._get("/methods", attempts.left_s()))

        return await self._tried(attempts, once)

    async def is_alive(self) -> bool:
        """Return whether the process of the service answers."""
        return await self._probe("/livez")

    async def is_ready(self) -> bool:
        """Return whether the service would answer a question now."""
        return await self._probe("/readyz")

    async def wait_until_ready(self, timeout_s: float = 180.0) -> None:
        """Wait for a service that starts. Raises DeadlineExceeded."""
        attempts = Attempts(self.retries, timeout_s)
        while not await self.is_ready():
            attempts.left_s()
            await anyio.sleep(POLL_S)

    def _attempts(self, form: Form[Result]) -> Attempts:
        timeout_s = form.call.get("timeout_s", self.timeout_s)
        return Attempts(self.retries, timeout_s, form.on_progress, repeats=form.repeats)

    async def _post(self, make: Callable[[], Form[Result]]) -> Result:
        form = await anyio.to_thread.run_sync(make)
        attempts = self._attempts(form)

        async def once() -> Result:
            response = await self._opened(form, attempts)
            try:
                await response.aread()
            finally:
                await response.aclose()
            return result_of(form.result, response)

        return await self._tried(attempts, once)

    async def _tried(self, attempts: Attempts, once: Callable[[], Awaitable[Result]]) -> Result:
        """Do something until it succeeds, or fails for good; never longer than the deadline."""
        while True:
            try:
                try:
                    with anyio.fail_after(attempts.left_s()):
                        return await once()
                except TimeoutError:
                    raise attempts.late() from None
                except httpx.TransportError as error:
                    raise client_error(error, attempts, self.url) from error
            except ClientError as error:
                await anyio.sleep(attempts.pause_s(error))

    async def _opened(self, form: Form[Result], attempts: Attempts) -> httpx.Response:
        """Send a form and return the response before its body. Raises ServiceError for a refusal."""
        headers, body = form.encoded(attempts.told_s())
        request = self._http.build_request(
            form.verb,
            form.path,
            content=_watched(body, attempts) if attempts.is_watched else body,
            headers=headers,
            timeout=timeouts(attempts.left_s()),
        )
        response = await self._http.send(request, stream=True)
        if not response.is_success:
            try:
                await response.aread()
            finally:
                await response.aclose()
            raise_refusal(response)
        return response

    async def _get(self, path: str, left_s: float | None) -> httpx.Response:
        return await self._http.get(path, timeout=timeouts(left_s))

    async def _probe(self, path: str) -> bool:
        try:
            return (await self._get(path, self.timeout_s)).is_success
        except httpx.TransportError:
            return False


async def _watched(body: bytes, attempts: Attempts) -> AsyncIterator[bytes]:
    """Yield a body in pieces, and report before each how much was sent."""
    sent = 0
    for chunk in chunks(body):
        attempts.report(Progress("sending", attempts.number, sent, len(body)))
        yield chunk
        sent += len(chunk)
    attempts.report(Progress("waiting", attempts.number, sent, len(body)))
