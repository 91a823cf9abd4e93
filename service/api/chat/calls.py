"""Answers that call a function: its name and arguments, whole and in pieces."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from service.api.chat.output import ToolUse

HEAD = re.compile(r'\{"name": "([^"\\]*)", "arguments": ')
"""What stands in front of the arguments where the answer names the function."""


@dataclass
class Call:
    """Read one call from an answer while it is written; `name` is None until it is known."""

    tool_use: ToolUse
    name: str | None = None
    _text: str = field(default="", repr=False)
    _sent: int = field(default=0, repr=False)

    def push(self, text: str) -> str:
        """Take new text of the answer; return what is new of the arguments."""
        self._text += text
        return self._new_arguments(holds_back=True)

    def flush(self, is_whole: bool) -> str:
        """Return the rest of the arguments, once the answer has ended; is_whole: it was not cut off."""
        return self._new_arguments(holds_back=is_whole)

    def _new_arguments(self, holds_back: bool) -> str:
        if len(self.tool_use.names) == 1:
            self.name, start, end = self.tool_use.names[0], 0, len(self._text)
        elif (head := HEAD.match(self._text)) is None:
            return ""
        else:  # the last brace closes the call, not its arguments
            self.name, start, end = head[1], head.end(), len(self._text) - holds_back
        new = self._text[start + self._sent : end]
        self._sent += len(new)
        return new


def read_call(tool_use: ToolUse, text: str, is_whole: bool) -> tuple[str, str] | None:
    """Return the name and the arguments of a call; None if it was cut off before its arguments."""
    call = Call(tool_use)
    arguments = call.push(text) + call.flush(is_whole)
    return None if call.name is None else (call.name, arguments)
