"""The language model of this process: prompts are read and answers decoded in the model thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.language.protocol import Reading
from vlm import Decoding, Vlm, synchronize


class TorchLanguage:
    """Decode the answers of a batch together, one token of each in a step."""

    is_here = True
    running = 0

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm

    def begin(self, readings: Sequence[Reading]) -> Iterator[None]:
        """Read prompts and decode their answers; yields when the prompts are read and after every token.

        Raises what the model raises, such as VlmError for a prompt that is too long.
        """
        vlm = self._vlm
        rows = [(reading.listener, choice) for reading in readings for choice in range(len(reading.params))]
        decoding = Decoding(
            vlm,
            [reading.prompt.to(vlm.device) for reading in readings],
            [reading.visuals for reading in readings],
            [params for reading in readings for params in reading.params],
            [at for at, reading in enumerate(readings) for _ in reading.params],
        )
        synchronize(vlm.device)
        for reading in readings:
            reading.listener.read()
        while decoding.active:
            yield
            decoding.cancel([at for at in decoding.active if not rows[at][0].is_open])
            for row in decoding.step():
                listener, choice = rows[row.index]
                if listener.take(choice, row):
                    decoding.cancel([row.index])

    def why_no_grammar(self, with_logprobs: bool) -> None:
        """Return None: every step of an answer is taken here."""

    def check(self, prompt_tokens: int = 0) -> None:
        """Refuse nothing: `prepare` has seen to the room, and the model is here."""

    def close(self, timeout_s: float | None = None) -> bool:
        """Return True; there is no thread."""
        return True
