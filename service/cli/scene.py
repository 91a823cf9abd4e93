"""`tosa-vqa scene`: write a synthetic room that the embedded models know."""

from __future__ import annotations

from pathlib import Path

import click

from service.cli.errors import fail, os_error_message
from service.roomqa.condition import CAMERAS, CONDITIONS, STRENGTHS, Condition


@click.command()
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Which scene.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--condition", type=click.Choice(CONDITIONS), help="What spoils the picture.")
@click.option("--strength", type=click.IntRange(1, len(STRENGTHS)), help="How much it does; 2.")
@click.option("--depth-camera", type=click.Choice(CAMERAS), default="exact", help="What measures depth.")
def scene(seed: int, out: Path, condition: str | None, strength: int | None, depth_camera: str) -> None:
    """Write a synthetic room with questions.

    The files are rgb.png, depth.png (16-bit, millimetres) and scene.json.
    """
    from service.roomqa.export import write_scene

    if strength is not None and condition is None:
        fail("--strength is that of a condition: give --condition too, or leave it out")
    spoiled = None if condition is None else Condition(condition, strength or 2)
    try:
        write_scene(seed, out, condition=spoiled, camera=depth_camera)
    except OSError as error:
        fail(os_error_message(error))
    click.echo(f"wrote rgb.png, depth.png and scene.json to {out}")
