"""Commands that other packages add to the command line by entry points of the group `tosa_vqa.commands`.

An entry point names a typer application of one command; it is imported for that command and for --help only.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

GROUP = "tosa_vqa.commands"


class PluginGroup(TyperGroup):
    """Find commands among our own, then among the entry points."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name all commands: our own in their order, then those of other packages."""
        own = super().list_commands(ctx)
        return [*own, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, imported now if another package has it; None if nobody has."""
        own = super().get_command(ctx, cmd_name)
        found = [] if own is not None else list(entry_points(group=GROUP, name=cmd_name))
        return _loaded(found[0]) if found else own


def _loaded(point: EntryPoint) -> Any:
    command = get_command(point.load())
    command.name = point.name
    return command
