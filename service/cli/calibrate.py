"""`tosa-vqa calibrate`: measure this model on this machine, for method=auto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from service.cli.errors import exit_on_errors
from service.cli.in_process import load_settings
from service.cli.options import FILE, MODEL_OPTIONS, with_options

CACHE_BYTES = 2**28


@with_options(*(option for option in MODEL_OPTIONS if option.name != "calibration"))
@click.command()
@click.option("--out", type=FILE, required=True, help="JSON file to write, for TOSA_VQA_CALIBRATION.")
@click.option(
    "--questions", type=click.IntRange(4, 10_000), default=100, help="Asked about every kind of picture."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=15, help="Of timing; the median counts.")
def calibrate(out: Path, questions: int, rounds: int, **given: Any) -> None:
    """Measure the time and the accuracy of merging settings.

    On synthetic rooms, clean and with three strengths of noise. The machine should have nothing else to do.
    """
    from transformers.utils.logging import disable_progress_bar

    from service.cli.calibrating import calibrate as measure
    from service.pipeline.frame_cache import FrameCache
    from service.pipeline.models import Models, load_model

    with exit_on_errors():
        settings = load_settings(**given)
        disable_progress_bar()
        models = Models(load_model(settings), None, FrameCache(CACHE_BYTES))
        found = measure(models, settings, questions, rounds, say=click.echo)
        out.write_text(found.model_dump_json(indent=1) + "\n")
    click.echo(f"wrote {out}")
