"""The reference of the command line, read from the commands themselves."""

from __future__ import annotations

import click

from bench.tables.markdown import prose, table
from service.cli.main import app


def cli() -> str:
    """Every command with its arguments and options."""
    context = click.Context(app)
    commands = {name: app.get_command(context, name) for name in app.list_commands(context)}
    return "\n\n".join(_section(name, command) for name, command in commands.items() if command)


def _section(name: str, command: click.Command) -> str:
    options = [one for one in command.params if isinstance(one, click.Option)]
    rows = [[_names(one), _default(one), prose(one.help or "")] for one in options]
    shown = f"\n\n{table(['option', 'default', 'meaning'], rows, right=False)}" if rows else ""
    return f"## `{_usage(name, command)}`\n\n{prose(command.help or '')}{shown}"


def _usage(name: str, command: click.Command) -> str:
    arguments = [one.human_readable_name for one in command.params if isinstance(one, click.Argument)]
    return " ".join(["tosa-vqa", name, *arguments])


def _names(parameter: click.Option) -> str:
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: click.Option) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    return f"`{default}`" if isinstance(default, str | int | float) and default is not False else ""
