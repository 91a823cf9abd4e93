"""Stop sequences: texts that end an answer, found while it is streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


def truncate_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the stop that is complete first, and whether there is one."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(found)[1]], True) if found else (text, False)


@dataclass
class StopSequences:
    """Apply `truncate_at_stop` to a stream; hold back text that may be the beginning of a stop."""

    stops: Sequence[str]
    is_hit: bool = False
    _held: str = field(default="", repr=False)

    def push(self, delta: str) -> str:
        """Return the text that can be sent now; empty once a stop was found."""
        if self.is_hit:
            return ""
        text, self.is_hit = truncate_at_stop(self._held + delta, self.stops)
        shown = text if self.is_hit else text[: len(text) - self._partial_stop(text)]
        self._held = text[len(shown) :]
        return shown

    def _partial_stop(self, text: str) -> int:
        """Return how many characters at the end of `text` are the beginning of a stop."""
        sizes = (size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        return max(sizes, default=0)
