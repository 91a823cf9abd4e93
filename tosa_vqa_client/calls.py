"""A request as values, before it is sent: address, form and files. Both clients send the same."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tosa_vqa_client.errors import BadInput
from tosa_vqa_client.files import Depth, Image, depth_file, image_file, several
from tosa_vqa_client.options import CallOptions, MergeOptions
from tosa_vqa_client.progress import OnProgress
from tosa_vqa_client.results import Answer, Comparison, DepthInspection, Overlay

Result = TypeVar("Result")
CHUNK_BYTES = 65_536
"""What is sent between two reports of progress."""
_CALL_OPTIONS = tuple(CallOptions.__annotations__)


@dataclass(frozen=True)
class Form(Generic[Result]):
    """Hold a form to post, the dataclass of its answer, and the options of the call.

    takes_timeout: whether the service has a field for the time that is left. verb: GET and DELETE have no
    body. repeats: whether it may be sent again when nobody knows if it arrived.
    """

    path: str
    result: type[Result]
    fields: Mapping[str, str]
    files: Sequence[tuple[str, bytes]]
    takes_timeout: bool
    call: CallOptions = field(default_factory=CallOptions)
    verb: str = "POST"
    repeats: bool = True

    @property
    def on_progress(self) -> OnProgress | None:
        """Return the function that wants to know how far the request is."""
        return self.call.get("on_progress")

    def encoded(self, timeout_s: float | None) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body, with the time that is left."""
        if self.verb != "POST":
            return {}, b""
        boundary = secrets.token_hex(16)
        told = {} if timeout_s is None or not self.takes_timeout else {"timeout_s": f"{timeout_s:.3f}"}
        parts = [_part(boundary, name, text.encode()) for name, text in {**self.fields, **told}.items()]
        parts += [_part(boundary, name, data, name) for name, data in self.files]
        body = b"".join((*parts, f"--{boundary}--\r\n".encode()))
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if not parts:  # a form without a part is none
            headers, body = {"Content-Type": "application/json"}, b"{}"
        request_id = self.call.get("request_id")
        if request_id is not None:
            headers["X-Request-ID"] = request_id
        return {**headers, "Content-Length": str(len(body))}, body


def question_form(
    question: str,
    images: Image | Sequence[Image],
    depth: Depth | Sequence[Depth] | None,
    options: Mapping[str, Any],
    stream: bool = False,
) -> Form[Answer]:
    """Write a question. Raises BadInput, and OSError for a path that cannot be read."""
    fields = {"question": question, **named_fields(options), **({"stream": True} if stream else {})}
    return Form("/vqa", Answer, form_texts(fields), files_of(images, depth), True, call_options(options))


def comparison_form(
    question: str,
    images: Image | Sequence[Image],
    specs: Sequence[MergeOptions],
    depth: Depth | Sequence[Depth] | None,
    options: Mapping[str, Any],
) -> Form[Comparison]:
    """Write a comparison. Raises BadInput, and OSError for a path that cannot be read."""
    fields = form_texts({"question": question, **named_fields(options)})
    fields["specs"] = json_text([_spec(spec) for spec in specs], "specs")
    return Form("/vqa/compare", Comparison, fields, files_of(images, depth), True, call_options(options))


def overlay_form(image: Image, depth: Depth | None, options: Mapping[str, Any]) -> Form[Overlay]:
    """Write a picture whose merging is to be shown. Raises BadInput, and OSError."""
    return Form(
        "/vqa/overlay",
        Overlay,
        form_texts(named_fields(options)),
        files_of(image, depth),
        True,
        call_options(options),
    )


def inspection_form(depth: Depth, image: Image | None, options: Mapping[str, Any]) -> Form[DepthInspection]:
    """Write a depth file to be inspected. Raises BadInput, and OSError for a path that cannot be read."""
    files = files_of(() if image is None else image, depth)
    return Form(
        "/depth/inspect",
        DepthInspection,
        form_texts(named_fields(options)),
        files,
        False,
        call_options(options),
    )


def chunks(body: bytes) -> Iterator[bytes]:
    """Cut a body into pieces."""
    for start in range(0, len(body), CHUNK_BYTES):
        yield body[start : start + CHUNK_BYTES]


def _part(boundary: str, name: str, data: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def files_of(images: Any, depths: Any) -> list[tuple[str, bytes]]:
    """Encode the files of a form, in order. Raises BadInput, and OSError for a path that cannot be read."""
    found = [("image", image_file(one)) for one in several(images)]
    return found + [("depth", depth_file(one)) for one in several(() if depths is None else depths)]


def call_options(options: Mapping[str, Any]) -> CallOptions:
    """Return the options that concern the call and not its question."""
    found: Any = {name: options[name] for name in _CALL_OPTIONS if name in options}
    return found


def named_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the service, by the names of HTTP."""
    fields = {name: value for name, value in options.items() if name not in _CALL_OPTIONS}
    if "depth_source" in fields:
        fields["depth"] = fields.pop("depth_source")
    return fields


def form_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """Write fields as the texts of a form; None is not sent."""
    return {name: _text(name, value) for name, value in fields.items() if value is not None}


def _text(name: str, value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Mapping():
            return json_text(value, name)
        case int() | float():
            return str(value)
    if isinstance(value, list | tuple) and any(not isinstance(one, int | float | str) for one in value):
        return json_text(value, name)  # poses, say: lists, objects and null
    if hasattr(value, "__iter__"):
        texts = [_text(name, one) for one in value]
        if not texts:
            raise BadInput(f"{name} is empty: leave it out, or give it a value")
        return f"[{','.join(texts)}]"
    return str(value)  # a number of numpy


def _spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of the specs; None is not sent."""
    return {name: _plain(value) for name, value in spec.items() if value is not None}


def _plain(value: Any) -> Any:
    """Return lists and objects of values as JSON has them."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value


def json_text(value: Any, name: str) -> str:
    """Write a value as JSON. Raises BadInput."""
    try:
        return json.dumps(_plain(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} cannot be written as JSON: {error}") from None
