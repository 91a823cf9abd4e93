"""`tosa-vqa scene`: write a synthetic room, as a command that the command line finds by its entry point."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

scene = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@scene.command()
def write(
    seed: Annotated[int, typer.Option(help="Which scene.", min=0)],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
) -> None:
    """Write a synthetic room: rgb.png, depth.png (16-bit, millimetres) and scene.json with questions."""
    from evals.rooms.export import write_scene

    try:
        write_scene(seed, out)
    except OSError as error:
        sentence = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        typer.echo(f"error: {sentence}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"wrote rgb.png, depth.png and scene.json to {out}")
