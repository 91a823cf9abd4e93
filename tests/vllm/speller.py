"""A real vLLM server whose tokens are bytes, so that they spell every text. It wants a key and never ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load.serving import Serving, free_port
from bench.vllm_server import vllm_serving
from tests.vllm.client import KEY
from tests.vlm.conftest import write_checkpoint
from vlm import Vlm, load_vlm
from vlm.language_checkpoint import write_language_model

MAX_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class Speller:
    """A tiny random checkpoint, its language model as vLLM loads it, and the server of that."""

    checkpoint: Path
    language: Path
    vlm: Vlm
    port: int
    serving: Serving

    def again(self) -> AbstractContextManager[Serving]:
        """Start another server at the same address."""
        return _server(self.language, self.port)


@contextmanager
def speller_serving(folder: Path) -> Iterator[Speller]:
    checkpoint = folder / "tiny"
    write_checkpoint(checkpoint, byte_level=True, max_tokens=MAX_TOKENS, language_heads=1)
    language, port = write_language_model(checkpoint, folder / "language").folder, free_port()
    with _server(language, port) as serving:
        yield Speller(checkpoint, language, load_vlm(checkpoint), port, serving)


def _server(language: Path, port: int) -> AbstractContextManager[Serving]:
    options = ("--enable-prompt-embeds", "--block-size", "32", "--max-num-seqs", "256")
    guided = ("--structured-outputs-config.backend", "guidance")
    return vllm_serving(language, *options, *guided, "--api-key", KEY, port=port)
