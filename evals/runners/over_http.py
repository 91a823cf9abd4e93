"""Ask a running server over HTTP, with retries."""

from __future__ import annotations

import asyncio
import json
from asyncio import sleep
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from evals.runners.asking import Answer, RunError, Spec, answered, concurrently, fields_of, files_of
from evals.runners.items import Item

if TYPE_CHECKING:
    import httpx

BUSY = (429, 502, 503)
PATIENCE_S = 300.0
"""Seconds for which a server may refuse every request as busy or not ready before the run ends."""
LONGEST_PAUSE_S = 60.0
ANSWER_TIMEOUT_S = 600.0
LOST_CONNECTIONS = 3
_GO_ON = "start it and run the same command again to go on"


class HttpAnswerer:
    """Ask a running server, `concurrency` questions at a time. Raises RunError if it cannot be reached.

    url: the server's address, as http://127.0.0.1:8000. transport: of httpx, for tests.
    """

    def __init__(
        self,
        url: str,
        spec: Spec,
        concurrency: int = 8,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name, self._spec, self._concurrency = url, dict(spec), concurrency
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._transport, self._patience_s = transport, patience_s
        self._last_answer = monotonic()
        self._model = asyncio.run(self._served())

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what answers depend on; for a server, only its model is known."""
        return {"model": self._model, "spec": self._spec}

    def answer(self, items: Sequence[Item]) -> Iterator[Answer]:
        """Yield the answers."""
        client, self._last_answer = self._client(), monotonic()
        return concurrently(partial(self._ask, client), items, self._concurrency, client.aclose)

    def close(self) -> None:
        """Nothing to close: connections are open only while answers are yielded."""

    def _client(self) -> httpx.AsyncClient:
        import httpx

        try:
            return httpx.AsyncClient(
                base_url=self.name,
                headers=self._headers,
                timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=10),
                limits=httpx.Limits(max_connections=self._concurrency),
                transport=self._transport,
            )
        except httpx.InvalidURL as error:
            raise RunError(f"{self.name} is no address: {error}") from None

    async def _served(self) -> dict[str, str]:
        async with self._client() as client:
            response = await self._persist(lambda: client.get("/v1/models"))
        if response.status_code != 200:
            raise RunError(f"{self.name}/v1/models: {_error_line(response)}")
        try:
            (model,) = response.json()["data"]
            return {"id": model["id"], "revision": model["revision"]}
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{self.name} does not answer as this service does") from None

    async def _ask(self, client: httpx.AsyncClient, item: Item) -> Answer:
        images, depths = await asyncio.to_thread(files_of, item, self._spec)
        parts: list[Any] = [("image", (f"image{at}", data)) for at, data in enumerate(images)]
        parts += [("depth", (f"depth{at}", data)) for at, data in enumerate(depths)]
        fields = {name: _text(value) for name, value in fields_of(item, self._spec).items()}
        response = await self._persist(lambda: client.post("/vqa", data=fields, files=parts))
        self._last_answer = monotonic()
        if response.status_code in (401, 403, 404, 405):
            raise RunError(f"{self.name}/vqa: {_error_line(response)}")
        if response.status_code != 200:
            return Answer(item.id, "", {"error": _error(response)})
        try:
            body = response.json()
            answer, model = answered(item, body), body["model"]
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{self.name} does not answer as this service does") from None
        if model != self._model:
            raise RunError(f"{self.name} began to answer with another model, {model['id']}: nothing is mixed")
        return answer

    async def _persist(self, send: Callable[[], Any]) -> httpx.Response:
        """Send until the server is no longer busy, and return its response."""
        import httpx

        lost = 0
        while True:
            try:
                response = await send()
            except httpx.ReadTimeout:
                raise RunError(f"{self.name} gave no answer within {ANSWER_TIMEOUT_S:.0f} s") from None
            except httpx.TransportError as error:
                lost += 1
                if lost == LOST_CONNECTIONS:
                    why = str(error) or type(error).__name__
                    raise RunError(f"{self.name} cannot be reached ({why}); {_GO_ON}") from None
                await sleep(0.5 * lost)
                continue
            lost = 0
            if response.status_code not in BUSY or _error(response)["code"] == "no_estimator":
                return response
            if monotonic() - self._last_answer > self._patience_s:
                raise RunError(f"{self.name} is busy for too long: {_error_line(response)}; {_GO_ON}")
            await sleep(_pause_s(response))


def _error(response: httpx.Response) -> dict[str, Any]:
    """Return the error in a response, or build one from a body that is not the service's."""
    try:
        error = response.json()["error"]
        return {"code": str(error["code"]), "message": str(error["message"])}
    except (ValueError, KeyError, TypeError):
        return {"code": f"http_{response.status_code}", "message": response.reason_phrase}


def _error_line(response: httpx.Response) -> str:
    return f"{response.status_code} {_error(response)['message']}"


def _pause_s(response: httpx.Response) -> float:
    """Return the seconds to wait before the next try, from Retry-After."""
    try:
        return min(LONGEST_PAUSE_S, max(0.05, float(response.headers.get("Retry-After", 1))))
    except ValueError:  # a date: HTTP allows it
        return 1.0


def _text(value: Any) -> str:
    """Encode a form field: text unchanged, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
