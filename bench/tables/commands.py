"""The reference of the command line, read from the commands themselves."""

from __future__ import annotations

from enum import Enum
from typing import Any

from typer.main import get_command

from bench.tables.markdown import prose, table
from service.cli.main import app


def cli() -> str:
    """Every command with its arguments and options, those of other packages included."""
    group: Any = get_command(app)
    context = group.make_context("tosa-vqa", [], resilient_parsing=True)
    names = group.list_commands(context)
    return "\n\n".join(_command(name, group.get_command(context, name)) for name in names)


def _command(name: str, command: Any) -> str:
    options = [one for one in command.params if one.name != "help"]
    rows = [[_names(one), _default(one), prose(one.help)] for one in options]
    shown = table(["option", "default", "meaning"], rows, right=False)
    return f"## `tosa-vqa {name}`\n\n{prose(command.help)}\n\n{shown}"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    return "" if default in (None, False, (), []) else f"`{default}`"
