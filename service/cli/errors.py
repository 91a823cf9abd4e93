"""How a command ends when it cannot do what was asked: exit code 2 and one sentence on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from service.errors import ServiceError


@contextmanager
def clear_refusals() -> Iterator[None]:
    """Turn every refusal of ours into exit code 2 and one sentence."""
    from service.errors import ServiceError

    try:
        yield
    except ServiceError as error:
        fail(sentence(error))
    except OSError as error:
        fail(os_sentence(error))
    except Exception as error:
        said = _said(error)
        if said is None:
            raise
        fail(said)


def _said(error: Exception) -> str | None:
    """Return the sentence of what loading and planning raise; they have imported what is imported here."""
    from pydantic import ValidationError

    from depth import DepthError
    from depth.estimate import EstimatorError
    from service.errors.translation import to_service_error
    from tosa import PlanError
    from vlm import VlmError
    from vlm.overlay import PlotsMissing

    match error:
        case PlanError() | DepthError():
            return sentence(to_service_error(error))
        case VlmError() | EstimatorError() | PlotsMissing():  # names are of the caller's own files
            return str(error)
        case ValidationError():
            return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        case _:
            return None


def sentence(refusal: ServiceError) -> str:
    """Write a refusal of the service in one line; what its sentence does not name is added."""
    message, field, limit = refusal.message, refusal.field, refusal.limit
    about = f" ({field})" if field and field not in message else ""
    unnamed = [choice for choice in refusal.choices or () if choice not in message]
    choices = f" Choose from: {', '.join(refusal.choices or ())}." if unnamed else ""
    most = "" if limit is None or str(limit) in message else f" The limit is {limit}."
    return f"{message}{about}{choices}{most}"


def os_sentence(error: OSError) -> str:
    """Name the file and what is the matter with it."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def fail(message: str) -> NoReturn:
    """End the command."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)
