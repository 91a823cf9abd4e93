"""`tosa-vqa scene`: write a synthetic room that the embedded models know."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.errors import fail, os_error_message


@click.command()
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Which scene.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
def scene(seed: int, out: Path) -> None:
    """Write a synthetic room with questions.

    The files are rgb.png, depth.png (16-bit, millimetres) and scene.json.
    """
    from service.roomqa.export import write_scene

    try:
        write_scene(seed, out)
    except OSError as error:
        fail(os_error_message(error))
    click.echo(f"wrote rgb.png, depth.png and scene.json to {out}")
