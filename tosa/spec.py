"""The request for merging, the step of one layer, and the errors of a plan: plain hashable data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

_MOST_SHOWN = 8
_LARGEST = 2**31 - 1  # of any integer: far above every count, and exact as a float


@dataclass(frozen=True)
class MergeSpec:
    """Describe the merging of one request; `make_plan` checks it, and against an encoder.

    keep_ratio: share of patch tokens left at the end, in (0, 1]; exact, and for methods that keep a grid the
        nearest grid.
    r: tokens removed at each layer (of each window, where the encoder has windows, and cells where patches
        merge in cells); an int goes through `schedule`, a tuple gives each layer.
    r_hw: rows and columns removed at each layer, for methods that keep a grid (of each window, where the
        encoder has windows).
    schedule: "constant", "decreasing", "increasing" or the ToMe inflection in [-1, 1] (-1 = decreasing).
    layers: the layers that may merge, counted from 0; None means the default of the method.
    alpha: weight of ToSA's visual term: "increase", "decrease", "uniform", a number in [0, 1], one per layer,
        or "auto", by the quality of picture and depth.
    spatial_kernel: how similarity falls with distance in spatial tokens; read by the code that makes them.
    prop_attn: proportional attention; None means the default of the method.
    order: order of the visual tokens after the last layer.
    options: the method's own options, by name; a mapping or pairs.
    """

    method: str = "none"
    keep_ratio: float | None = None
    r: int | tuple[int, ...] | None = None
    r_hw: tuple[int, int] | None = None
    schedule: str | float = "constant"
    layers: tuple[int, ...] | None = None
    alpha: str | float | tuple[float, ...] = "increase"
    spatial_kernel: SpatialKernel = "sinusoidal"
    prop_attn: bool | None = None
    order: Order = "raster"
    options: Mapping[str, OptionValue] | tuple[tuple[str, OptionValue], ...] = ()

    def __post_init__(self) -> None:
        for field in ("keep_ratio", "r", "r_hw", "schedule", "layers", "alpha"):  # lists are not hashable
            object.__setattr__(self, field, _frozen(getattr(self, field)))
        object.__setattr__(self, "options", _sorted_pairs(self.options))


def _frozen(value: Any) -> Any:
    """Make tuples of lists, and Python numbers of other ones (NumPy's)."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _sorted_pairs(options: Any) -> Any:
    try:
        return tuple(sorted((name, _frozen(value)) for name, value in dict(options).items()))
    except (TypeError, ValueError):
        return options  # for `make_plan` to refuse


@dataclass(frozen=True)
class MergeStep:
    """Say what one layer of num_layers does: remove r tokens, of a grid r_hw = (rows, columns).

    On windows, r_hw is what each whole window loses, and so is r for methods that keep no grid; kept are the
    tokens that a window of each size keeps then. options: the method's own dataclass, None for its defaults.
    """

    layer: int
    r: int = 0
    r_hw: tuple[int, int] | None = None
    alpha: Alpha = 1.0
    num_layers: int = 1
    options: object | None = None
    kept: tuple[int, ...] | None = None


class PlanError(ValueError):
    """A request that no plan can satisfy.

    `code` is for machines, `field` is one of MergeSpec, the sentence is for people. `limit` is the bound that
    was passed (for keep_ratio_too_small the smallest that works), `choices` are the values that are accepted.
    The sentence repeats numbers and plain words of the request only, see `shown`.
    """

    def __init__(
        self,
        code: str,
        field: str,
        sentence: str,
        *,
        limit: float | None = None,
        choices: Iterable[str] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code, self.field, self.limit = code, field, limit
        self.choices = None if choices is None else tuple(choices)

    def __reduce__(self) -> tuple[Any, ...]:
        # By default the class is called with the sentence alone.
        return type(self).__new__, (type(self), *self.args), self.__dict__


class UnknownMethod(PlanError):
    """A method name that METHODS does not hold."""

    def __init__(self, name: object, known: Iterable[str]) -> None:
        known = tuple(known)
        sentence = f"unknown method {shown(name)}; known: {', '.join(known)}."
        super().__init__("unknown_method", "method", sentence, choices=known)


def shown(value: object) -> str:
    """Format a value of a request for a message: numbers and plain words verbatim, others by type."""
    if isinstance(value, str):
        is_plain = value.isascii() and value.replace("_", "").replace("-", "").isalnum() and len(value) <= 64
        return repr(value) if is_plain else "another text"
    if isinstance(value, tuple | list):
        head = ", ".join(map(shown, value[:_MOST_SHOWN]))
        return f"({head}, ...)" if len(value) > _MOST_SHOWN else f"({head})"
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "a larger integer"
    return repr(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"


def require_kinds(spec: MergeSpec) -> None:
    """Check every field but the words. Raises PlanError: its code is "bad_" and the name of the field."""
    for field, (fits, kind) in _KINDS.items():
        if not fits(getattr(spec, field)):
            raise PlanError(f"bad_{field}", field, f"{field} must be {kind}.")
    if not isinstance(spec.options, tuple) or not all(map(_is_option, spec.options)):
        message = "options must be names with a number, a word or nothing each."
        raise PlanError("bad_option", "options", message)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _are(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, tuple) and all(map(fits, values))


def _is_option(pair: Any) -> bool:
    return len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int | float | str | None)


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "keep_ratio": (lambda value: value is None or _is_number(value), "a number"),
    "r": (
        lambda value: value is None or _is_integer(value) or _are(value, _is_integer),
        "an integer or a list of integers",
    ),
    "r_hw": (
        lambda value: value is None or (_are(value, _is_integer) and len(value) == 2),
        "two integers, (rows, columns)",
    ),
    "schedule": (lambda value: isinstance(value, str) or _is_number(value), "a word or a number"),
    "layers": (lambda value: value is None or _are(value, _is_integer), "a list of integers"),
    "alpha": (
        lambda value: isinstance(value, str) or _is_number(value) or _are(value, _is_number),
        "a word, a number or a list of numbers",
    ),
    "prop_attn": (lambda value: value is None or isinstance(value, bool), "true or false"),
}


Order = Literal["raster", "merge"]
ORDERS: tuple[Order, ...] = ("raster", "merge")
Alpha = float | Literal["auto"]  # of one layer
SpatialKernel = Literal["sinusoidal", "distance"]
OptionValue = int | float | str | None
