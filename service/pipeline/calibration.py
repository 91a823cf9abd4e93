"""What `tosa-vqa calibrate` measured of a model on a machine, and what method=auto chooses by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlm import Vlm
from vlm.dtypes import short

SHARE = 0.98
"""Of the accuracy without merging: what method=auto keeps where a request says nothing."""


class CalibrationError(Exception):
    """A calibration that cannot be used; the message says why, and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Kind(_Part):
    """Say what the pictures of one kind were like: the median of their noise, in grey values of 255."""

    name: str
    noise: float = Field(ge=0)


class Measured(_Part):
    """Hold one setting: its merge fields, the median time of an answer, and its share of right answers.

    accuracy: for each kind of picture, 0 to 1.
    """

    merge: dict[str, str | float]
    needs_depth: bool
    total_ms: float = Field(gt=0)
    accuracy: dict[str, float]

    @property
    def name(self) -> str:
        """Return the setting in words."""
        words = [str(self.merge["method"])]
        words += [f"{name} {value}" for name, value in self.merge.items() if name != "method"]
        return " ".join(words)


class Calibration(_Part):
    """Hold everything that was measured, and of what; the first setting does not merge."""

    model: str
    revision: str
    device: str
    dtype: str
    threads: int
    date: str
    questions: int
    kinds: tuple[Kind, ...] = Field(min_length=1)
    settings: tuple[Measured, ...] = Field(min_length=1)

    @property
    def none(self) -> Measured:
        """Return what was measured without merging."""
        return self.settings[0]


@dataclass(frozen=True)
class Choice:
    """Hold the merge fields that were chosen, and why."""

    merge: dict[str, Any]
    because: str


def read_calibration(path: Path) -> Calibration:
    """Read the file of a calibration. Raises CalibrationError."""
    try:
        found = Calibration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}") from None
    except ValidationError:
        raise CalibrationError(f"{path} is no calibration: write it anew with tosa-vqa calibrate") from None
    kinds = {kind.name for kind in found.kinds}
    if found.none.merge.get("method") != "none" or any(
        one.accuracy.keys() != kinds for one in found.settings
    ):
        raise CalibrationError(f"{path} is no calibration: write it anew with tosa-vqa calibrate")
    return found


def require_same(calibration: Calibration, vlm: Vlm) -> None:
    """Refuse the calibration of another model, device or dtype. Raises CalibrationError."""
    was = (calibration.model, calibration.revision, calibration.device, calibration.dtype)
    now = (vlm.id, vlm.revision, vlm.device.type, short(vlm.dtype))
    if was != now:
        raise CalibrationError(
            f"the calibration is of {_words(was)}, and this is {_words(now)}: run tosa-vqa calibrate again"
        )


def choose(
    calibration: Calibration,
    noise: float,
    has_depth: bool,
    target_ms: float | None = None,
    target_accuracy: float | None = None,
) -> Choice:
    """Choose by the noise of a picture, and by one target.

    target_ms: the most accurate setting that is fast enough, or else the fastest. target_accuracy: the
    fastest one that keeps this share of the accuracy without merging; SHARE without any target. Settings
    that need depth are only for requests that send it. None that was slower than no merging is taken.
    """
    kind = min(calibration.kinds, key=lambda one: abs(math.log1p(one.noise) - math.log1p(noise)))
    none = calibration.none
    able = [one for one in calibration.settings if has_depth or not one.needs_depth]
    able = [none, *(one for one in able if one is not none and one.total_ms < none.total_ms)]
    seen = f"the picture has noise of {noise:.0f} of 255, as {kind.name} pictures ({kind.noise:.0f})"
    if target_ms is not None:
        chosen, why = _within(able, kind.name, target_ms)
    else:
        chosen, why = _keeping(able, none, kind.name, SHARE if target_accuracy is None else target_accuracy)
    measured = f"{100 * chosen.accuracy[kind.name]:.1f} % right in {chosen.total_ms:.0f} ms"
    beside = f", none: {100 * none.accuracy[kind.name]:.1f} % in {none.total_ms:.0f} ms"
    because = (
        f"{seen}; {chosen.name} {why} of {len(able)} settings: {measured}"
        f"{'' if chosen is none else beside} (calibrated {calibration.date})"
    )
    return Choice(dict(chosen.merge), because)


def _within(able: Sequence[Measured], kind: str, target_ms: float) -> tuple[Measured, str]:
    fast = [one for one in able if one.total_ms <= target_ms]
    if not fast:
        return min(
            able, key=lambda one: one.total_ms
        ), f"is the fastest, {target_ms:g} ms being out of reach,"
    best = max(fast, key=lambda one: (one.accuracy[kind], -one.total_ms))
    return best, f"is the most accurate within {target_ms:g} ms"


def _keeping(able: Sequence[Measured], none: Measured, kind: str, share: float) -> tuple[Measured, str]:
    least = share * none.accuracy[kind]
    good = [one for one in able if one.accuracy[kind] >= least]
    fastest = min(good, key=lambda one: one.total_ms, default=none)
    return fastest, f"is the fastest that keeps {100 * share:g} % of the accuracy without merging"


def _words(model: tuple[str, str, str, str]) -> str:
    name, revision, device, dtype = model
    return f"{name} {revision[:16]} on {device} in {dtype}"
