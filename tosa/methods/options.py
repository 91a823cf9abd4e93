"""The options of a method: their declaration, their description, and checks that raise BadOption."""

from __future__ import annotations

import math
import sys
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from tosa.spec import MergeStep, OptionValue, shown

_Options = TypeVar("_Options")


def option(default: OptionValue, doc: str) -> Any:
    """Declare a field of a method's options: its default, and the sentence that describes it to users."""
    return field(default=default, metadata={"doc": doc})


class BadOption(ValueError):
    """A value that an option does not accept; `limit` is the exceeded bound, `choices` the accepted words."""

    def __init__(
        self, message: str, *, limit: float | None = None, choices: tuple[str, ...] | None = None
    ) -> None:
        super().__init__(message)
        self.limit, self.choices = limit, choices


def options_of(step: MergeStep, kind: type[_Options]) -> _Options:
    """Return a step's options of a method, defaults if it has none; TypeError for another method's."""
    if step.options is None:
        return kind()
    if not isinstance(step.options, kind):
        raise TypeError(f"step.options must be {kind.__name__} or None, got {type(step.options).__name__}")
    return step.options


def require_number(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise BadOption unless the value is a finite number in [least, most]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value <= min(most, sys.float_info.max):  # neither infinite nor NaN
        raise _outside(name, "a number", value, least, most)


def require_integer(name: str, value: int, least: int, most: float = math.inf) -> None:
    """Raise BadOption unless the value is an integer in [least, most]."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _outside(name, "an integer", value, least, most)


def require_word(name: str, value: object, words: tuple[str, ...]) -> None:
    """Raise BadOption unless the value is one of the words."""
    if value not in words:
        raise BadOption(f"{name} must be {' or '.join(words)}, got {shown(value)}", choices=words)


def _outside(name: str, kind: str, value: object, least: float, most: float) -> BadOption:
    limit = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        limit = least if value < least else most if value > most else None
    finite = " and finite" if value == math.inf else ""
    message = f"{name} must be {kind} {_range(least, most)}{finite}, got {shown(value)}"
    return BadOption(message, limit=None if limit == math.inf else limit)


def _range(least: float, most: float) -> str:
    return f"of at least {least}" if most == math.inf else f"from {least} to {most}"


@dataclass(frozen=True)
class Setting:
    """Describe one option: its type as annotated, its default, and a sentence."""

    name: str
    type: str
    default: OptionValue
    doc: str


def settings_of(options: type | None) -> tuple[Setting, ...]:
    """List the options of a method, in order.

    Every option must have a default and a sentence, as `option` declares them; asserted.
    """
    if options is None:
        return ()
    described = []
    for own in fields(options):
        assert own.default is not MISSING, f"{options.__name__}.{own.name} has no default"
        assert own.metadata.get("doc"), f"{options.__name__}.{own.name} is not described"
        described.append(Setting(own.name, str(own.type), own.default, own.metadata["doc"]))
    return tuple(described)
