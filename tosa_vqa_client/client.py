"""The client for programs with threads, or with nothing but a loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from tosa_vqa_client.calls import Form, chunks, comparison_form, inspection_form, overlay_form, question_form
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
POLL_S = 0.1


class AnswerStream:
    """Iterate over the pieces of an answer as they come; `answer` is the whole of it after the last one."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._events = lines, Events()

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces. Raises ServiceError if the service fails meanwhile."""
        for line in self._lines:
            piece = self._events.feed(line)
            if piece is not None:
                yield piece

    @property
    def answer(self) -> Answer:
        """Return the whole answer. Raises BadResponse before the last piece."""
        return self._events.whole()


class Client:
    """Ask a service over HTTP; connections stay open between requests, and threads may share one client.

    url: address of the service. api_key: where the service has keys. timeout_s: longest time of a request
    with all its tries, for calls that name none; None waits for ever. trust_env: whether proxies of the
    environment are used. transport: httpx's, to reach a service in some other way.

    Every call raises ServiceError if the service refuses, ConnectionFailed, DeadlineExceeded, BadResponse,
    and BadInput before anything is sent; all are ClientError.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_s: float | None = 60.0,
        retries: Retries | None = None,
        trust_env: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.timeout_s, self.retries = url.rstrip("/"), timeout_s, retries or Retries()
        self._http = httpx.Client(**http_options(self.url, api_key, trust_env), transport=transport)

    def __enter__(self) -> Client:
        """Return the client; its connections are closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def ask(
        self,
        question: str,
        images: Image | Sequence[Image],
        depth: Depth | Sequence[Depth] | None = None,
        **options: Unpack[AskOptions],
    ) -> Answer:
        """Answer a question about one image or several, each with its depth or all without."""
        return self._post(question_form(question, images, depth, options))

    @contextmanager
    def stream(
        self,
        question: str,
        images: Image | Sequence[Image],
        depth: Depth | Sequence[Depth] | None = None,
        **options: Unpack[AskOptions],
    ) -> Iterator[AnswerStream]:
        """Answer a question piece by piece; leaving the block early cancels it in the service."""
        form = question_form(question, images, depth, options, stream=True)
        attempts = self._attempts(form)
        response = self._tried(attempts, lambda: self._opened(form, attempts))
        try:
            yield AnswerStream(response.iter_lines())
        except httpx.TransportError as error:
            raise client_error(error, attempts, self.url) from error
        finally:
            response.close()

    def compare(
        self,
        question: str,
        images: Image | Sequence[Image],
        specs: Sequence[MergeOptions],
        depth: Depth | Sequence[Depth] | None = None,
        **options: Unpack[CompareOptions],
    ) -> Comparison:
        """Answer one question with several merge settings and one upload."""
        return self._post(comparison_form(question, images, specs, depth, options))

    def inspect_depth(
        self, depth: Depth, image: Image | None = None, **options: Unpack[InspectOptions]
    ) -> DepthInspection:
        """Report how the service reads a depth file, and with picture=True draw it."""
        return self._post(inspection_form(depth, image, options))

    def overlay(self, image: Image, depth: Depth | None = None, **options: Unpack[OverlayOptions]) -> Overlay:
        """Show which patches of a picture become one token, layer by layer; no question is answered."""
        return self._post(overlay_form(image, depth, options))

    def begin_episode(self, **options: Unpack[EpisodeOptions]) -> EpisodeState:
        """Begin an episode, whose frames come one by one; its `id` names it."""
        return self._post(begin_form(options))

    def push_frame(
        self, episode: str, image: Image, depth: Depth | None = None, **options: Unpack[PushOptions]
    ) -> FrameTaken:
        """Encode a frame and take its tokens into an episode.

        It is not sent again after a lost connection: `episode` says how many frames came.
        """
        return self._post(push_form(episode, image, depth, options))

    def ask_episode(self, episode: str, question: str, **options: Unpack[EpisodeAskOptions]) -> Answer:
        """Answer a question about an episode from the tokens that it holds; nothing is encoded."""
        return self._post(episode_question_form(episode, question, options))

    def move_frames(
        self, episode: str, poses: Mapping[int, Pose], convention: str | None = None
    ) -> EpisodeState:
        """Give frames of an episode new poses, by their numbers, as after a loop closure."""
        return self._post(move_form(episode, poses, convention))

    def episode(self, episode: str, places: bool = False) -> EpisodeState:
        """Describe an episode, and with `places` where its cameras and tokens are."""
        return self._post(state_form(episode, places))

    def episodes(self) -> tuple[str, ...]:
        """Return the ids of all episodes of the key."""
        return self._post(list_form()).episodes

    def end_episode(self, episode: str) -> None:
        """Delete an episode."""
        self._post(end_form(episode))

    def methods(self) -> Methods:
        """List the merging methods, their options, and the defaults of a request."""
        attempts = Attempts(self.retries, self.timeout_s)
        return self._tried(attempts, lambda: result_of(Methods, self._get("/methods", attempts.left_s())))

    def is_alive(self) -> bool:
        """Return whether the process of the service answers."""
        return self._probe("/livez")

    def is_ready(self) -> bool:
        """Return whether the service would answer a question now."""
        return self._probe("/readyz")

    def wait_until_ready(self, timeout_s: float = 180.0) -> None:
        """Wait for a service that starts. Raises DeadlineExceeded."""
        attempts = Attempts(self.retries, timeout_s)
        while not self.is_ready():
            attempts.left_s()
            time.sleep(POLL_S)

    def _attempts(self, form: Form[Result]) -> Attempts:
        timeout_s = form.call.get("timeout_s", self.timeout_s)
        return Attempts(self.retries, timeout_s, form.on_progress, repeats=form.repeats)

    def _post(self, form: Form[Result]) -> Result:
        attempts = self._attempts(form)

        def once() -> Result:
            response = self._opened(form, attempts)
            try:
                response.read()
            finally:
                response.close()
            return result_of(form.result, response)

        return self._tried(attempts, once)

    def _tried(self, attempts: Attempts, once: Callable[[], Result]) -> Result:
        """Do something until it succeeds, or fails for good."""
        while True:
            try:
                try:
                    return once()
                except httpx.TransportError as error:
                    raise client_error(error, attempts, self.url) from error
            except ClientError as error:
                time.sleep(attempts.pause_s(error))

    def _opened(self, form: Form[Result], attempts: Attempts) -> httpx.Response:
        """Send a form and return the response before its body. Raises ServiceError for a refusal."""
        headers, body = form.encoded(attempts.told_s())
        request = self._http.build_request(
            form.verb,
            form.path,
            content=_watched(body, attempts) if attempts.is_watched else body,
            headers=headers,
            timeout=timeouts(attempts.left_s()),
        )
        response = self._http.send(request, stream=True)
        if not response.is_success:
            try:
                response.read()
            finally:
                response.close()
            raise_refusal(response)
        return response

    def _get(self, path: str, left_s: float | None) -> httpx.Response:
        return self._http.get(path, timeout=timeouts(left_s))

    def _probe(self, path: str) -> bool:
        try:
            return self._get(path, self.timeout_s).is_success
        except httpx.TransportError:
            return False


def _watched(body: bytes, attempts: Attempts) -> Iterator[bytes]:
    """Yield a body in pieces, and report before each how much was sent."""
    sent = 0
    for chunk in chunks(body):
        attempts.report(Progress("sending", attempts.number, sent, len(body)))
        yield chunk
        sent += len(chunk)
    attempts.report(Progress("waiting", attempts.number, sent, len(body)))
