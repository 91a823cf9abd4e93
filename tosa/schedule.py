"""Per-layer schedules from a name or a number: how many tokens to remove, and ToSA's alpha.

`tosa.counts` limits the removals to what a layer can lose.
"""

from __future__ import annotations

from collections.abc import Sequence

from tosa.spec import Alpha, PlanError, shown

_AUTO: Alpha = "auto"
_INFLECTION = {"constant": 0.0, "decreasing": -1.0, "increasing": 1.0}


def inflection(schedule: str | float) -> float:
    """Turn a schedule name or number into ToMe's inflection in [-1, 1]. Raises PlanError."""
    value = _INFLECTION.get(schedule) if isinstance(schedule, str) else float(schedule)
    if value is None or not -1.0 <= value <= 1.0:
        sentence = f"schedule must be {', '.join(_INFLECTION)} or a number in [-1, 1], got {shown(schedule)}."
        limit = None if value is None else -1 if value < -1 else 1
        raise PlanError("bad_schedule", "schedule", sentence, limit=limit, choices=_INFLECTION)
    return value


def paper_schedule(r: int | Sequence[int], num_layers: int, inflection: float = 0.0) -> tuple[int, ...]:
    """Return the tokens to remove at each layer as ToMe counts them (arXiv 2210.09461).

    An int falls or rises linearly around r by r * inflection; a sequence is padded with zeros.
    """
    if not isinstance(r, int):
        return (*r, *(0 for _ in range(num_layers - len(r))))
    if num_layers == 1:
        return (r,)
    first = int(r * (1 - inflection))
    step = 2 * (r - first) / (num_layers - 1)
    return tuple(int(first + step * layer) for layer in range(num_layers))


def removal_weights(num_layers: int, inflection: float) -> tuple[float, ...]:
    """Return each layer's share of removals, linear from 1 - inflection to 1 + inflection, summing to 1."""
    if num_layers == 1:
        return (1.0,)
    slope = 2 * inflection / (num_layers - 1)
    return tuple((1 - inflection + slope * layer) / num_layers for layer in range(num_layers))


def alpha_schedule(alpha: str | float | Sequence[float], num_layers: int) -> tuple[Alpha, ...]:
    """Return the weight of the visual term at each layer (ToSA, arXiv 2506.20066), each in [0, 1].

    "increase" runs from 0 (spatial first) to 1 at the last layer, "decrease" the other way, "uniform" is 0.5.
    "auto" stays "auto": the layer finds its weight. Raises PlanError.
    """
    rising: tuple[Alpha, ...] = tuple(layer / max(num_layers - 1, 1) for layer in range(num_layers))
    if isinstance(alpha, str):
        automatic: tuple[Alpha, ...] = (_AUTO,) * num_layers
        words: dict[str, tuple[Alpha, ...]] = {
            "increase": rising,
            "decrease": tuple(1 - value for value in rising),
            "uniform": (0.5,) * num_layers,
            "auto": automatic,
        }
        if alpha not in words:
            sentence = f"alpha must be {', '.join(words)}, a number in [0, 1] or a list of them."
            raise PlanError("bad_alpha", "alpha", sentence, choices=words)
        return words[alpha]
    values = (float(alpha),) * num_layers if isinstance(alpha, int | float) else tuple(map(float, alpha))
    if len(values) != num_layers:
        sentence = f"alpha has {len(values)} values for {num_layers} layers: send one for each."
        raise PlanError("bad_alpha", "alpha", sentence, limit=num_layers)
    for value in values:
        if not 0.0 <= value <= 1.0:  # also NaN
            sentence = f"alpha must lie in [0, 1], got {shown(value)}."
            raise PlanError("bad_alpha", "alpha", sentence, limit=0 if value < 0 else 1)
    return values
