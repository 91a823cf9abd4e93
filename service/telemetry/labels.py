"""The closed sets of label values: whatever a client sends, the number of series has a bound."""

from __future__ import annotations

from collections.abc import Iterable

from service.errors.table import CODES
from service.keys import KeyRing
from service.settings import Settings
from service.timing import STAGES
from tosa import METHODS

OTHER = "other"
SEVERAL = "several"
MOST_KEYS = 100  # named in metrics; the keys after these are counted together


class ClosedSet:
    """Let the values of a label through, and turn every other one into `other`."""

    def __init__(self, values: Iterable[str]) -> None:
        self.values = frozenset(values)

    def __call__(self, value: object) -> str:
        return value if isinstance(value, str) and value in self.values else OTHER


ROUTES = ClosedSet(
    (
        "/vqa",
        "/vqa/compare",
        "/vqa/overlay",
        "/rooms",
        "/v1/chat/completions",
        "/depth/inspect",
        "/episodes",
        "/episodes/{id}/frames",
        "/episodes/{id}/vqa",
    )
)
LANGUAGE_OUTCOMES = ClosedSet(
    ("ok", "aborted", "numerical_error", *(code for code in CODES if code.startswith("language_")))
)
CODES = ClosedSet(CODES)
WHERES = ClosedSet(("admission", "body", "decode", "queue", "model", "stream", "done"))
METHOD_NAMES = ClosedSet(METHODS)
STAGE_NAMES = ClosedSet(STAGES)
OUTCOMES = ClosedSet(("ok", "split", "out_of_memory", "failed"))
STATUSES = ClosedSet(("2xx", "4xx", "5xx"))
RESULTS = ClosedSet(("hit", "miss"))
PARTS = ClosedSet(("metrics", "log", "traces"))


def status_class(status: int) -> str:
    """Return 2xx, 4xx or 5xx."""
    return STATUSES(f"{status // 100}xx")


def one_method(methods: tuple[str, ...]) -> str:
    """Name the method of a whole request: `several` if it compared, `other` if it is unknown."""
    if len(methods) > 1:
        return SEVERAL
    return METHOD_NAMES(methods[0]) if methods else OTHER


def key_names(settings: Settings) -> ClosedSet:
    """Return the names of the API keys. Raises ValueError as KeyRing.of does."""
    return ClosedSet(KeyRing.of(settings).names[:MOST_KEYS])
