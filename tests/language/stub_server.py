"""A language server as vLLM is one, over the language model of `vlm`, that fails in every way on demand.

It runs in a thread of the tests, so that they can hold it back, count what runs in it, and end it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import torch
import uvicorn
from llguidance import LLMatcher
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from torch import Tensor

from tests.loopback import PATIENCE_S, free_port, wait_for
from vlm import Decoding, GeneratedSequence, GenerationParams, Visual, Vlm
from vlm.grammar import Grammar
from vlm.guide import TokenGuide

S = TypeVar("S", bound="Stub")

MODEL = "tiny-language"
SECRET = "s3cret-for-the-server"


@dataclass
class Behaviour:
    """How the server answers. status, words: of a refusal in place of an answer. fails_after: tokens of an
    answer before what `how` says happens to it. holds_at: tokens before an answer waits for `go`. grammars:
    whether it keeps them, refuses them (another backend), fails (another backend in use) or knows none."""

    status: int = 200
    words: str = "no"
    headers: dict[str, str] = field(default_factory=dict)
    how: str = ""  # cut, half, garbled, error, oom, abort, nan, beyond, silence
    fails_after: int = 0
    holds_at: int | None = None
    grammars: Literal["keeps", "refuses", "fails", "ignores"] = "keeps"
    health: int = 200
    models: tuple[str, ...] = (MODEL,)
    max_model_len: int | None = 512
    key: str | None = None
    queue_ms: float | None = None
    together: int = 1  # tokens in an event
    lingers: bool = False  # with the end of its response


class Stub:
    """One server. requests: the bodies it got, whole. asked: the paths, in order. written: events."""

    path = "/v1/completions"

    def __init__(self, vlm: Vlm) -> None:
        self.vlm, self.behaviour = vlm, Behaviour()
        self.requests: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.most_running = self.aborted = 0
        self.seen_prefixes: set[bytes] = set()
        self.written: list[dict[str, Any]] = []
        self.go = threading.Event()
        self.port = free_port()
        self._lock = threading.Lock()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def answered(self) -> int:
        """Count the prompts that were to be streamed, those of the check of the weights apart."""
        return sum(bool(request.get("stream")) for request in self.requests)

    def start(self) -> None:
        routes = [
            Route("/health", self._health),
            Route("/v1/models", self._models),
            Route(self.path, self._complete, methods=["POST"]),
            Route("/elsewhere", self._elsewhere, methods=["GET", "POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            port=self.port,
            log_level="error",
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        server = self._server
        wait_for(lambda: server.started)

    def kill(self) -> None:
        """End at once, with every connection, as a process does that is killed."""
        server, thread = self._server, self._thread
        assert server is not None and thread is not None
        server.force_exit = server.should_exit = True
        loop = server.servers[0].get_loop()
        loop.call_soon_threadsafe(self._abort_all, server)
        self.go.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        self._server = None

    def stop(self) -> None:
        if self._server is not None:
            self.kill()

    @staticmethod
    def _abort_all(server: uvicorn.Server) -> None:
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]

    def _hear(self, request: Request) -> Response | None:
        self.asked.append(request.url.path)
        self.headers.append(dict(request.headers))
        wanted = self.behaviour.key
        if wanted is not None and request.headers.get("authorization") != f"Bearer {wanted}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        return None

    async def _elsewhere(self, request: Request) -> Response:
        self.asked.append("/elsewhere")
        return JSONResponse({})

    async def _health(self, request: Request) -> Response:
        self.asked.append("/health")
        if self.behaviour.health == 0:
            await asyncio.sleep(PATIENCE_S)
        return Response(status_code=self.behaviour.health)

    async def _models(self, request: Request) -> Response:
        refused = self._hear(request)
        limit = (
            {} if self.behaviour.max_model_len is None else {"max_model_len": self.behaviour.max_model_len}
        )
        return refused or JSONResponse({"data": [{"id": name, **limit} for name in self.behaviour.models]})

    async def _complete(self, request: Request) -> Response:
        refused = self._hear(request)
        if refused is not None:
            return refused
        asked = self.heard(json.loads(await request.body()))
        self.requests.append(asked)
        behaviour = self.behaviour
        if behaviour.status != 200 and asked.get("stream"):
            if behaviour.status == 307:
                return RedirectResponse("/elsewhere")
            error = {"message": behaviour.words, "type": "Error", "param": None, "code": behaviour.status}
            return JSONResponse({"error": error}, behaviour.status, behaviour.headers)
        if asked["model"] not in behaviour.models:
            error = {"message": f"The model {asked['model']} does not exist.", "code": 404}
            return JSONResponse({"error": error}, 404)
        if (failure := _failure(asked, behaviour)) is not None:
            if not asked.get("stream"):
                return JSONResponse(failure, failure["error"]["code"])
            lines = _data(failure) + b"data: [DONE]\n\n"
            return Response(lines, media_type="text/event-stream")
        if not asked.get("stream"):
            return JSONResponse(self.said(await asyncio.to_thread(self._whole, asked)))
        return StreamingResponse(self._stream(asked, behaviour), media_type="text/event-stream")

    def heard(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a request in the words of the completions API."""
        return body

    def said(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return an event in the words of this address."""
        return event

    def _whole(self, asked: dict[str, Any]) -> dict[str, Any]:
        decoding = self._decoding(asked)
        with self._lock:
            while decoding.active:
                decoding.step()
        (row,) = decoding.rows
        reason = {"stop": "stop"}.get(str(row.finish_reason), "length")
        return _event(asked, row.token_ids, row, 0, reason)

    async def _stream(self, asked: dict[str, Any], behaviour: Behaviour) -> AsyncIterator[bytes]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        is_whole = False
        try:
            decoding = await asyncio.to_thread(self._decoding, asked)
            (row,) = decoding.rows
            sent = 0
            while decoding.active:
                if behaviour.holds_at == sent:
                    await asyncio.to_thread(self.go.wait, PATIENCE_S)
                if behaviour.how and sent >= behaviour.fails_after:
                    async for last in self._fail(behaviour, asked):
                        yield last
                    if behaviour.how in ("cut", "half", "garbled", "error", "oom", "abort", "silence"):
                        return
                await asyncio.to_thread(self._step, decoding)
                tokens = row.token_ids[sent:]
                reason = row.finish_reason
                if reason is None and len(tokens) < behaviour.together:
                    continue
                new = [*tokens, *(asked["stop_token_ids"][:1] if reason == "stop" else [])]
                self.written.append(self.said(_event(asked, new, row, sent, reason)))
                yield _data(self.written[-1])
                sent = len(row.token_ids)
            is_whole = True
            if behaviour.lingers:
                await asyncio.sleep(PATIENCE_S)
            self.written.append(self.said(self._usage(asked, row, behaviour)))
            yield _data(self.written[-1])
            yield b"data: [DONE]\n\n"
        finally:
            self.running -= 1
            self.aborted += not is_whole

    async def _fail(self, behaviour: Behaviour, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        match behaviour.how:
            case "cut":
                raise ConnectionResetError("cut on purpose")
            case "half":
                yield b"data: [DONE]\n\n"
            case "garbled":
                yield b"data: {not json\n\n"
            case "error" | "oom":
                words = "CUDA out of memory" if behaviour.how == "oom" else "the engine is lost"
                yield _data({"error": {"message": words, "type": "InternalServerError", "code": 500}})
                yield b"data: [DONE]\n\n"
            case "abort":
                yield _data(_event(asked, [], None, 0, "abort"))
                yield b"data: [DONE]\n\n"
            case "nan":
                event = _event(asked, [7], None, 0, None)
                event["choices"][0]["logprobs"] = {
                    "token_logprobs": [None],
                    "top_logprobs": [{"token_id:7": None}],
                }
                yield _data(event)
            case "beyond":
                yield _data(_event(asked, [10**6], None, 0, None))
            case "silence":
                await asyncio.sleep(PATIENCE_S)

    def _step(self, decoding: Decoding) -> None:
        with self._lock:
            decoding.step()

    @torch.inference_mode()
    def _decoding(self, asked: dict[str, Any]) -> Decoding:
        """Read a prompt."""
        params = GenerationParams(
            max_new_tokens=asked["max_tokens"],
            temperature=asked["temperature"],
            top_p=asked.get("top_p", 1.0),
            seed=asked.get("seed"),
            top_logprobs=asked.get("logprobs"),
            grammar=self._grammar(asked),
        )
        ids, visuals = self._prompt(asked)
        with self._lock:
            return Decoding(self._ended_by(asked), [ids], [visuals], [params])

    def _prompt(self, asked: dict[str, Any]) -> tuple[Tensor, Tensor | list[Visual]]:
        """Return ids, and what stands at those of visual tokens: of embeddings, or of ids alone."""
        if "prompt_embeds" in asked:
            embeds = loaded(asked["prompt_embeds"])
            return torch.full((1, len(embeds)), self.vlm.image_token_id), embeds[None]
        return torch.tensor([asked["prompt"]]), torch.empty(1, 0, self.vlm.text_config.hidden_size)

    def _ended_by(self, asked: dict[str, Any]) -> Vlm:
        """Return the model whose answers only the tokens of the request end, if it says so."""
        if not asked.get("ignore_eos"):
            return self.vlm
        return replace(self.vlm, eos_token_ids=frozenset(asked.get("stop_token_ids") or ()))

    def _grammar(self, asked: dict[str, Any]) -> Grammar | None:
        vocabulary, given = self.vlm.vocabulary, asked.get("structured_outputs")
        if given is None or self.behaviour.grammars == "ignores":
            return None
        assert vocabulary.matching is not None
        matcher = LLMatcher(vocabulary.matching, given["grammar"], log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return Grammar(lambda: TokenGuide(matcher.deep_copy(), vocabulary, self.vlm.eos_token_ids))

    def _usage(self, asked: dict[str, Any], row: GeneratedSequence, behaviour: Behaviour) -> dict[str, Any]:
        first = asked["prompt_embeds"][:400].encode() + str(asked.get("cache_salt")).encode()
        cached = 16 if first in self.seen_prefixes else 0
        self.seen_prefixes.add(first)
        counts = {"prompt_tokens": row.prompt_tokens, "completion_tokens": len(row.token_ids)}
        usage = {**counts, "prompt_tokens_details": {"cached_tokens": cached}}
        metrics = {} if behaviour.queue_ms is None else {"metrics": {"queue_time_ms": behaviour.queue_ms}}
        return {**_head(asked), "choices": [], "usage": usage, **metrics}


def loaded(text: str) -> Tensor:
    """Read embeddings as vLLM does."""
    embeds = torch.load(
        io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True, map_location="cpu"
    )
    assert isinstance(embeds, Tensor) and embeds.ndim == 2
    return embeds


def _failure(asked: dict[str, Any], behaviour: Behaviour) -> dict[str, Any] | None:
    """Return the error of a server that cannot compile a grammar."""
    if "structured_outputs" not in asked or behaviour.grammars in ("keeps", "ignores"):
        return None
    words, code = {
        "refuses": ("Invalid grammar specification.", 400),
        "fails": ("Internal server error", 500),
    }[behaviour.grammars]
    return {"error": {"message": words, "type": "Error", "param": None, "code": code}}


def _head(asked: dict[str, Any]) -> dict[str, Any]:
    return {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": asked["model"]}


def _event(
    asked: dict[str, Any], tokens: list[int], row: GeneratedSequence | None, start: int, reason: str | None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}
    choice |= {"stop_reason": None, "token_ids": tokens}
    if asked.get("logprobs") is not None and row is not None:
        own = row.logprobs[start:]
        ended = len(tokens) - len(own)  # the token that ends an answer
        choice["logprobs"] = {
            "text_offset": [0] * len(tokens),
            "tokens": [f"token_id:{token}" for token in tokens],
            "token_logprobs": [*(one.logprob for one in own), *[-0.5] * ended],
            "top_logprobs": [
                *({f"token_id:{t}": p for t, p in [(one.token_id, one.logprob), *one.top]} for one in own),
                *[{f"token_id:{tokens[-1]}": -0.5}] * ended,
            ],
        }
    return {**_head(asked), "choices": [choice]}


def _data(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


@contextmanager
def running(stub: S) -> Iterator[S]:
    """Serve from a stub for the length of the block."""
    stub.start()
    try:
        yield stub
    finally:
        stub.go.set()
        stub.stop()


def stub_server(vlm: Vlm) -> AbstractContextManager[Stub]:
    return running(Stub(vlm))
