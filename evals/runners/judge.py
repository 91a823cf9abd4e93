"""Ask a language model, the judge, for marks through an OpenAI-compatible endpoint.

Every reply is saved as it arrives, so that a run can be stopped at any time. A reply without a mark is saved
too, counts as a failure, and is requested again by the next run. A failure never becomes a mark.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import httpx
from tqdm import tqdm

from evals.runners.asking import RunError
from evals.runners.llm_match import parse_mark

OPTIONS: Mapping[str, Any] = {"temperature": 0.2, "seed": 1234, "max_tokens": 32}
"""The sampling options of the official script."""
MANY = 20
"""This many failures in a row mean that the judge is down or misconfigured."""
LONGEST_PAUSE_S = 60.0
NO_MARK = "no_mark"


@dataclass(frozen=True)
class Judge:
    """The judge's endpoint and options. url: what comes before /chat/completions, as http://host:port/v1."""

    url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=lambda: dict(OPTIONS))
    concurrency: int = 8
    tries: int = 6
    pause_s: float = 1.0
    timeout_s: float = 120.0

    def body(self, message: str) -> dict[str, Any]:
        """Return the request: one message of the user, as the official script sends it."""
        body = {"model": self.model, "messages": [{"role": "user", "content": message}], **self.options}
        return {name: value for name, value in body.items() if value is not None}

    @property
    def address(self) -> str:
        """Return the url without password and query, safe to show."""
        return str(httpx.URL(self.url).copy_with(userinfo=b"", query=None, fragment=None))

    def key(self, message: str) -> str:
        """Hash everything known here that a mark depends on."""
        return hashlib.sha256(json.dumps([self.url, self.body(message)]).encode()).hexdigest()


@dataclass(frozen=True)
class Verdict:
    """The result of one request. failure: why there is no mark. judge: the model named in the reply."""

    key: str
    mark: int | None
    reply: str | None = None
    judge: str | None = None
    failure: str | None = None


def judged(judge: Judge, messages: Mapping[str, str], file: Path) -> dict[str, Verdict]:
    """Return the verdict on every message by its id; those with a mark in `file` are not requested again.

    Raises RunError if the judge cannot be reached, refuses access or fails repeatedly; marks are kept.
    """
    keys = {id_: judge.key(message) for id_, message in messages.items()}
    known = {key: verdict for key, verdict in _read(file).items() if verdict.mark is not None}
    todo = {keys[id_]: message for id_, message in messages.items() if keys[id_] not in known}
    failures = 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as kept, _verdicts(judge, todo) as verdicts:
        for verdict in tqdm(verdicts, total=len(todo), desc=f"judge {judge.model}", unit="answer"):
            kept.write(json.dumps(asdict(verdict)).encode() + b"\n")
            kept.flush()
            known[verdict.key] = verdict
            failures = 0 if verdict.mark is not None else failures + 1
            if failures >= MANY:
                raise RunError(f"the judge failed {failures} times in a row, {_why(verdict)}; {_GO_ON}")
    return {id_: known[key] for id_, key in keys.items()}


def describe(judge: Judge, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Name the judge for a report, with how often it failed and why; no key, no password."""
    failed = [verdict for verdict in verdicts.values() if verdict.mark is None]
    return {
        "model": judge.model,
        "says_it_is": dict(Counter(one.judge for one in verdicts.values() if one.judge is not None)),
        "url": judge.address,
        "options": dict(judge.options),
        "marks": dict(
            sorted(Counter(str(one.mark) for one in verdicts.values() if one.mark is not None).items())
        ),
        "failures": dict(Counter(one.failure for one in failed)),
        "first_reply_without_mark": next((one.reply for one in failed if one.failure == NO_MARK), None),
    }


@contextmanager
def _verdicts(judge: Judge, todo: Mapping[str, str]) -> Iterator[Iterator[Verdict]]:
    """Judge all messages, several at a time; closing early wakes the waiting threads and sends no more."""
    stop = Event()
    headers = {"Authorization": f"Bearer {judge.api_key}"} if judge.api_key else {}
    pool = ThreadPoolExecutor(judge.concurrency)
    with httpx.Client(headers=headers, timeout=judge.timeout_s) as client:
        try:
            futures = [pool.submit(_ask, client, judge, key, message, stop) for key, message in todo.items()]
            yield map(Future.result, as_completed(futures))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _ask(client: httpx.Client, judge: Judge, key: str, message: str, stop: Event) -> Verdict:
    """Retry until a reply or a permanent failure. Raises RunError for errors that affect every message."""
    verdict = Verdict(key, None, failure="not_asked")
    for attempt in range(judge.tries):
        wait = min(LONGEST_PAUSE_S, judge.pause_s * 2**attempt)
        try:
            response = client.post(_endpoint(judge), json=judge.body(message))
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ConnectError) and attempt == judge.tries - 1:
                raise RunError(f"no judge can be reached at {judge.address} ({error}); {_GO_ON}") from None
            verdict = Verdict(key, None, failure=type(error).__name__)
        else:
            if response.status_code in (401, 403, 404, 405):
                raise RunError(f"the judge refuses: {response.status_code}, {response.text[:300]}")
            verdict = _verdict(key, response)
            if response.status_code not in (408, 409, 429) and response.status_code < 500:
                return verdict
            wait = _asked_to_wait(response, wait)
        if attempt < judge.tries - 1 and stop.wait(wait):
            break
    return verdict


def _verdict(key: str, response: httpx.Response) -> Verdict:
    if response.status_code != 200:
        return Verdict(key, None, response.text[:300], failure=f"http_{response.status_code}")
    try:
        body = response.json()
        reply, who = body["choices"][0]["message"]["content"] or "", str(body.get("model"))
        mark = parse_mark(reply)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return Verdict(key, None, response.text[:300], failure="no_chat_completion")
    return Verdict(key, mark, reply, who, NO_MARK if mark is None else None)


def _endpoint(judge: Judge) -> httpx.URL:
    url = httpx.URL(judge.url)
    return url.copy_with(path=url.path.rstrip("/").removesuffix("/chat/completions") + "/chat/completions")


def _asked_to_wait(response: httpx.Response, otherwise: float) -> float:
    try:
        return min(LONGEST_PAUSE_S, max(0.0, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):  # absent, or a date: HTTP allows it
        return otherwise


def _read(file: Path) -> dict[str, Verdict]:
    """Read the saved verdicts; an incomplete last line, from a stopped run, is removed from the file."""
    if not file.exists():
        return {}
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        file.write_bytes(whole)
    found = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            verdict = Verdict(**json.loads(line))
        except (ValueError, TypeError):
            raise RunError(f"{file}, line {number} is no verdict: delete the line, or the file") from None
        found[verdict.key] = verdict
    return found


def _why(verdict: Verdict) -> str:
    return f"the last time {verdict.failure} ({(verdict.reply or '')[:200]!r})"


_GO_ON = "marks so far are kept: run the same command again to go on"
