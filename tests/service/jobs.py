"""Jobs without a model behind them, for tests of what happens around the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from service.engine.jobs import Job
from service.timing import StageTimer


@dataclass
class Waiting:
    """A waiter that is active until it is changed."""

    is_active: bool = True
    where: str = "queue"


@dataclass
class Toy:
    """What the batch queue reads: group, images, digest."""

    spec: str = "tome"
    images: int = 1
    is_encoded: bool = False
    params: tuple[None, ...] = (None,)
    digest: bytes = field(default_factory=lambda: object().__repr__().encode())


def toy_job(spec: str = "tome", images: int = 1, **more: Any) -> Job:
    waiter = more.pop("waiter", None) or Waiting()
    prepared: Any = Toy(spec, images, **more)
    return Job(prepared, StageTimer(), waiter)


def silent_observer() -> Any:
    return SimpleNamespace(
        batch_ended=lambda *_: None,
        frames_looked_up=lambda *_: None,
        language_ended=lambda *_: None,
        watch=lambda *_: None,
    )
