"""The messages of a chat completion as turns of a conversation, and the files they hold, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from service.api.json_body import decode_data_uri
from service.errors import ServiceError
from service.request.coercion import is_unicode
from vlm import Role, Turn

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "user",
}
"""Roles of messages, and what the model reads them as."""
PARTS = ("text", "image_url", "depth_url")


@dataclass(frozen=True)
class Conversation:
    """Hold turns, files in the order of their placeholders, and the text of the last user message.

    Names say where the files stand, such as messages[0].content[1].image_url.
    """

    turns: tuple[Turn, ...]
    images: tuple[bytes, ...]
    depths: tuple[bytes, ...]
    question: str
    image_names: tuple[str, ...]
    depth_names: tuple[str, ...]


@dataclass
class _Files:
    images: list[bytes] = field(default_factory=list)
    depths: list[bytes | None] = field(default_factory=list)  # one for each image
    image_names: list[str] = field(default_factory=list)
    depth_names: list[str] = field(default_factory=list)


def read_messages(raw: object, max_chars: int) -> Conversation:
    """Read messages with at most `max_chars` characters of text, all together. Raises ServiceError."""
    if not isinstance(raw, list) or not raw:
        raise ServiceError("bad_turns", reason="list", field="messages")
    files = _Files()
    turns = tuple(_turn(one, files, f"messages[{index}]") for index, one in enumerate(raw))
    if sum(len(text) for turn in turns for text in turn.content if text) > max_chars:
        raise ServiceError("prompt_too_long", reason="chars", field="messages", limit=max_chars)
    if turns[-1].role == "assistant":
        raise ServiceError("bad_turns", reason="last", field=f"messages[{len(turns) - 1}].role")
    return Conversation(
        turns,
        tuple(files.images),
        _whole(files.depths),
        _question(turns),
        tuple(files.image_names),
        tuple(files.depth_names),
    )


def _turn(raw: object, files: _Files, where: str) -> Turn:
    role = raw.get("role") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(role, str) or role not in ROLES:
        raise ServiceError("bad_turns", reason="role", field=f"{where}.role", choices=tuple(ROLES))
    if raw.get("function_call"):
        raise ServiceError("bad_turns", reason="function_call", field=f"{where}.function_call")
    content = raw.get("content")
    if raw.get("tool_calls"):
        calls = tuple(_calls(raw["tool_calls"], f"{where}.tool_calls"))
        texts = (_text(content, f"{where}.content"),) if content else ()
        return Turn(ROLES[role], texts + calls)
    if content is None and ROLES[role] == "assistant":
        content = ""  # as OpenAI writes a message that holds nothing but calls of tools
    if isinstance(content, str):
        return Turn(ROLES[role], (_text(content, f"{where}.content"),))
    if not isinstance(content, list) or not content:
        raise ServiceError("bad_turns", reason="content", field=f"{where}.content")
    return Turn(ROLES[role], tuple(_parts(content, ROLES[role], files, f"{where}.content")))


def _calls(raw: object, where: str) -> Iterator[str]:
    """Yield the text of every call in an earlier answer: what was called with which arguments."""
    for index, one in enumerate(raw if isinstance(raw, list) else [None]):
        function = one.get("function") if isinstance(one, dict) else None
        held = function if isinstance(function, dict) else {}
        name, arguments = held.get("name"), held.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, str):
            raise ServiceError("bad_turns", reason="call", field=f"{where}[{index}]")
        yield _text(f"{name}({arguments})", f"{where}[{index}]")


def _parts(raw: list[Any], role: Role, files: _Files, where: str) -> Iterator[str | None]:
    """Yield texts, and None for each image; the bytes go to `files`."""
    before = None
    for index, part in enumerate(raw):
        at = f"{where}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            yield _text(part.get("text"), at)
        elif kind == "image_url" and role == "user":
            files.images.append(_file(part, kind, at))
            files.image_names.append(f"{at}.{kind}")
            files.depths.append(None)
            yield None
        elif kind == "depth_url" and before == "image_url":
            files.depths[-1] = _file(part, kind, at)
            files.depth_names.append(f"{at}.{kind}")
        else:
            raise _misplaced(kind, at)
        before = kind


def _misplaced(kind: object, where: str) -> ServiceError:
    if kind == "image_url":
        return ServiceError("bad_turns", reason="image_role", field=where)
    if kind == "depth_url":
        return ServiceError("depth_count", reason="not_behind_image", field=where)
    return ServiceError("bad_turns", reason="part", field=where, choices=PARTS)


def _text(text: object, where: str) -> str:
    if not isinstance(text, str) or not is_unicode(text):
        raise ServiceError("bad_turns", reason="text", field=where)
    return text


def _file(part: dict[str, Any], kind: str, where: str) -> bytes:
    """Return the bytes of {"image_url": {"url": "data:..."}}; some clients leave the inner object out."""
    held = part.get(kind)
    uri = held.get("url") if isinstance(held, dict) else held
    if not isinstance(uri, str):
        raise ServiceError("bad_request", reason="data_uri", field=f"{where}.{kind}")
    try:
        data = decode_data_uri(uri)
    except ValueError:
        raise ServiceError("bad_request", reason="data_uri", field=f"{where}.{kind}") from None
    if data is None:
        raise ServiceError("url_refused", field=f"{where}.{kind}")
    return data


def _whole(depths: list[bytes | None]) -> tuple[bytes, ...]:
    sent = tuple(depth for depth in depths if depth is not None)
    if len(sent) not in (0, len(depths)):
        raise ServiceError("depth_count", reason="not_each_image", field="messages")
    return sent


def _question(turns: tuple[Turn, ...]) -> str:
    """Return the text of the last user turn that has text."""
    texts = (" ".join(filter(None, turn.content)) for turn in reversed(turns) if turn.role == "user")
    return next((text for text in texts if text.strip()), "")
