"""How a command fails: exit code 2 and one sentence on stderr. Ctrl-C ends it with exit code 130."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from depth import DepthError
    from service.errors import ServiceError
    from tosa import PlanError


INTERRUPTED = 130
"""128 + SIGINT, as shells report a process that Ctrl-C ended."""


class CommandError(click.ClickException):
    """The command cannot do what was asked."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print one sentence on stderr."""
        click.echo(f"error: {self.message}", file=file, err=file is None)


class CommandGroup(click.Group):
    """A group of commands in the order of their definition, which Ctrl-C ends with exit code 130."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands, in that order."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Turn the errors of the library, the service and the file system into exit code 2 and one sentence."""
    from depth import DepthError
    from service.errors import ServiceError

    try:
        yield
    except (ServiceError, DepthError) as error:
        fail(error_message(error))
    except OSError as error:
        fail(os_error_message(error))
    except Exception as error:
        message = _library_message(error)
        if message is None:
            raise
        fail(message)


def _library_message(error: Exception) -> str | None:
    """Return the message of an error that loading or planning raises, None for any other.

    The modules imported here are heavy; whatever raised one of these errors has imported them already.
    """
    from pydantic import ValidationError

    from depth.estimate import EstimatorError
    from service.pipeline.calibration import CalibrationError
    from tosa import PlanError
    from vlm import VlmError
    from vlm.overlay import PlotsMissing

    match error:
        case PlanError():
            return error_message(error)
        case (
            VlmError() | EstimatorError() | CalibrationError() | PlotsMissing()
        ):  # names are of the caller's own files
            return str(error)
        case ValidationError():
            return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        case _:
            return None


def error_message(error: ServiceError | DepthError | PlanError) -> str:
    """Return an error in one line; its field, choices and limit are added where its message lacks them."""
    from service.errors import ServiceError

    message = error.message if isinstance(error, ServiceError) else str(error)
    field, limit = error.field, error.limit
    about = f" ({field})" if field and field not in message else ""
    unnamed = [choice for choice in error.choices or () if choice not in message]
    choices = f" Choose from: {', '.join(error.choices or ())}." if unnamed else ""
    most = "" if limit is None or str(limit) in message else f" The limit is {limit}."
    return f"{message}{about}{choices}{most}"


def os_error_message(error: OSError) -> str:
    """Name the file and what went wrong with it."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def fail(message: str) -> NoReturn:
    """End the command with one sentence."""
    raise CommandError(message)
