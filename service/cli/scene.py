"""`tosa-vqa scene`: write a synthetic room that the embedded models know, or a walk through rooms."""

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
@click.option("--walk", is_flag=True, help="A walk: frames with poses and timestamps.")
@click.option("--frames", type=click.Choice(["8", "16"]), help="Of the walk; 16.")
@click.option("--moved", is_flag=True, help="One thing is moved while the camera looks elsewhere.")
@click.option("--drift", type=click.FloatRange(0, 10), help="How far poses are off at the end, in metres; 0.")
def scene(
    seed: int,
    out: Path,
    condition: str | None,
    strength: int | None,
    depth_camera: str,
    walk: bool,
    frames: str | None,
    moved: bool,
    drift: float | None,
) -> None:
    """Write a synthetic room with questions, or a walk through rooms.

    The files are rgb.png, depth.png (16-bit, millimetres) and scene.json. Those of a walk are 00-rgb.png,
    00-depth.png and 00.txt (pose) for each frame, intrinsic_color.txt and walk.json.
    """
    from service.roomqa.export import write_scene
    from service.roomqa.walks.export import write_walk

    if strength is not None and condition is None:
        fail("--strength is that of a condition: give --condition too, or leave it out")
    if walk and condition is not None:
        fail("--condition spoils single rooms: leave it out with --walk")
    if not walk and (frames is not None or moved or drift is not None):
        fail("--frames, --moved and --drift are those of a walk: give --walk too, or leave them out")
    spoiled = None if condition is None else Condition(condition, strength or 2)
    try:
        if walk:
            write_walk(seed, out, int(frames or 16), moves=moved, camera=depth_camera, drift_m=drift or 0.0)
        else:
            write_scene(seed, out, condition=spoiled, camera=depth_camera)
    except OSError as error:
        fail(os_error_message(error))
    written = "a walk and walk.json" if walk else "rgb.png, depth.png and scene.json"
    click.echo(f"wrote {written} to {out}")
