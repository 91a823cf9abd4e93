"""Make the language engine that the settings name."""

from __future__ import annotations

from service.language.in_process import TorchLanguage
from service.language.protocol import LanguageEngine, LanguageObserver
from service.settings import Settings
from vlm import Vlm


def open_language(vlm: Vlm, settings: Settings, observer: LanguageObserver) -> LanguageEngine:
    """Return the language model of this process, or a client of the language servers."""
    if settings.language == "torch":
        return TorchLanguage(vlm)
    from service.language.vllm import VllmLanguage  # its HTTP client is of no use to others

    return VllmLanguage(vlm, settings, observer)
