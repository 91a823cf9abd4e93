"""How a command ends when it cannot do what was asked: exit code 2 and one sentence on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from service.errors import ApiError


@contextmanager
def clear_refusals() -> Iterator[None]:
    """Turn every refusal of ours into exit code 2 and one sentence."""
    from depth import DepthError
    from service.errors import ApiError, from_depth

    try:
        yield
    except ApiError as error:
        fail(sentence(error))
    except DepthError as error:
        fail(sentence(from_depth(error)))
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

    from depth.estimate import EstimatorError
    from service.translation import to_api_error
    from tosa import PlanError
    from vlm import VlmError
    from vlm.overlay import PlotsMissing

    match error:
        case PlanError():
            return sentence(to_api_error(error))
        case VlmError() | EstimatorError() | PlotsMissing():
            return str(error)
        case ValidationError():
            return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        case _:
            return None


def sentence(refusal: ApiError) -> str:
    """Write a refusal of the service in one line."""
    about = f" ({refusal.field})" if refusal.field else ""
    choices = f" Choose from: {', '.join(refusal.choices)}." if refusal.choices else ""
    limit = "" if refusal.limit is None else f" The limit is {refusal.limit}."
    return f"{refusal.message}{about}{choices}{limit}"


def os_sentence(error: OSError) -> str:
    """Name the file and what is the matter with it."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def fail(message: str) -> NoReturn:
    """End the command."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)
