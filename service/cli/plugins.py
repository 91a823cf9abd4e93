"""Commands that other packages add to the command line by entry points of the group `tosa_vqa.commands`.

An entry point names a click command; it is imported only when that command or --help is asked for.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import click

from service.cli.errors import CommandGroup

ENTRY_POINT_GROUP = "tosa_vqa.commands"


class PluginGroup(CommandGroup):
    """Find commands among our own, then among the entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands: our own in the order of their definition, then those of other packages."""
        others = entry_points(group=ENTRY_POINT_GROUP).names - self.commands.keys()
        return [*self.commands, *sorted(others)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing that of another package; None if there is none of that name."""
        own = self.commands.get(cmd_name)
        found = () if own is not None else tuple(entry_points(group=ENTRY_POINT_GROUP, name=cmd_name))
        return _load(found[0]) if found else own


def _load(entry_point: EntryPoint) -> click.Command:
    command: click.Command = entry_point.load()
    command.name = entry_point.name
    return command
