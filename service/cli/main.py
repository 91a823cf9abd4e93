"""The command line.

Bad input ends with exit code 2 and one sentence; heavy modules are imported by the commands that need them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.calibrate import calibrate
from service.cli.errors import CommandGroup, exit_on_errors, fail, os_error_message
from service.cli.in_process import load_models_here, load_settings, prepare_here, read_fields, read_request
from service.cli.language_model import language_model
from service.cli.mcp import mcp
from service.cli.models import check, models
from service.cli.options import (
    DEPTH_OPTIONS,
    FILE,
    FRAMES_OPTIONS,
    INSPECT_OPTIONS,
    MERGE_OPTIONS,
    MODEL_OPTION,
    MODEL_OPTIONS,
    MODEL_SETTINGS,
    VIEWS_OPTION,
    with_options,
)
from service.cli.render import print_answer, print_inspection
from service.cli.scene import scene
from service.cli.walking import FRAMES_FIELDS, SOURCE_OPTIONS, Source, answer_about

if TYPE_CHECKING:
    from service.pipeline.response_models import VqaResponse


@click.group(cls=CommandGroup, context_settings={"max_content_width": 110, "show_default": True})
@click.version_option(package_name="tosa-vqa", prog_name="tosa-vqa", message="%(prog)s %(version)s")
def app() -> None:
    """Ask questions about RGB-D frames; visual tokens are merged inside the vision encoder."""


def main() -> None:
    """Run the command line."""
    app(prog_name="tosa-vqa")


@with_options(*MODEL_OPTIONS)
@app.command()
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on.")
@click.option(
    "--engine",
    type=click.Choice(["process", "ray"]),
    default="process",
    help="process: this one; ray: replicas behind Ray Serve (install the extra named ray).",
)
@click.option("--replicas", type=click.IntRange(1, 64), default=2, help="Replicas of --engine ray.")
@click.option(
    "--language",
    type=click.Choice(["torch", "vllm"]),
    help="Who reads prompts and writes answers: torch in this process (the default), or servers of vllm.",
)
@click.option(
    "--language-url",
    "language_urls",
    multiple=True,
    help="Address of a vllm server, such as http://127.0.0.1:8001; may be repeated.",
)
@click.option("--language-probe", type=FILE, help="Folder that language-model wrote for these servers.")
def serve(
    host: str, port: int, engine: str, replicas: int, language_urls: tuple[str, ...], **given: Any
) -> None:
    """Serve POST /vqa over HTTP until stopped.

    SIGTERM or Ctrl-C stops the server after it has answered all open requests.
    """
    from service.server.process import exit_on_signal, exit_process

    given["language_urls"] = ",".join(language_urls) or None
    if engine == "ray":
        from service.ray_serve.cluster import RayMissing, serve_on_ray

        with exit_on_errors():
            settings = load_settings(**given)
        try:
            sys.exit(serve_on_ray(settings, host, port, replicas))
        except RayMissing as error:
            fail(str(error))
    with exit_on_signal():
        with exit_on_errors():
            settings = load_settings(**given)
        from service.app import create_app
        from service.server.uvicorn_server import serve as serve_http

        try:
            application = create_app(settings)
        except ValueError as error:  # keys or traces that cannot be
            fail(str(error))
        exit_process(serve_http(application, host, port, settings))


@with_options(*MODEL_OPTIONS, *FRAMES_OPTIONS, VIEWS_OPTION, *MERGE_OPTIONS, *DEPTH_OPTIONS)
@app.command()
@click.option(
    "--image",
    "images",
    type=FILE,
    multiple=True,
    help="JPEG, PNG or WebP; may be repeated.",
)
@click.option("--question", required=True, help="Question about the images.")
@click.option("--depth", "depth_files", type=FILE, multiple=True, help="One for each image, in order.")
@click.option("--max-new-tokens", type=int, default=32, help="Longest answer, in tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print the response of POST /vqa.")
def ask(
    images: tuple[Path, ...],
    depth_files: tuple[Path, ...],
    as_json: bool,
    **fields: Any,
) -> None:
    """Answer one question in this process, without a server.

    About images, or about the frames of a walk: their tokens merge across frames by place, as in an episode.
    """
    from service.engine.batch_runner import answer_here
    from service.pipeline.response import respond
    from service.timing import StageTimer

    source = Source(images, depth_files, **{name: fields.pop(name) for name in SOURCE_OPTIONS})
    source.check()
    merges = any(fields[name] is not None for name in FRAMES_FIELDS)
    with exit_on_errors():
        settings = load_settings(**{name: fields.pop(name) for name in MODEL_SETTINGS})
        if merges or source.is_walk:
            _print(answer_about(source, fields, settings, StageTimer()), as_json)
            return
        fields = {name: value for name, value in fields.items() if name not in FRAMES_FIELDS}
        request = read_request(fields, images, depth_files, settings)
        loaded = load_models_here(settings)
        timer = StageTimer()  # loading is no stage of an answer
        models, prepared = prepare_here(loaded, request, settings, timer)
        _print(respond(models.vlm, prepared, answer_here(models, prepared, timer), timer, "cli"), as_json)


def _print(answer: VqaResponse, as_json: bool) -> None:
    if as_json:
        click.echo(answer.model_dump_json(indent=2, exclude_unset=True))
    else:
        print_answer(answer)


@with_options(*MODEL_OPTIONS, *MERGE_OPTIONS, *DEPTH_OPTIONS)
@app.command()
@click.option("--image", type=FILE, required=True, help="JPEG, PNG or WebP.")
@click.option("--out", type=FILE, required=True, help="PNG to write.")
@click.option("--depth", "depth_file", type=FILE, help="Depth of the image.")
@click.option("--strip", is_flag=True, help="Draw a film strip of the layers that merged.")
def overlay(
    image: Path,
    out: Path,
    depth_file: Path | None,
    strip: bool,
    **fields: Any,
) -> None:
    """Draw which patches of an image were merged.

    Patches that became one token have one colour: after the last layer, or layer by layer with --strip.
    """
    from service.pipeline.images import decode_image
    from service.pipeline.merge_trace import see
    from service.timing import StageTimer
    from vlm.overlay import draw_groups, strip_of

    with exit_on_errors():
        settings = load_settings(**{name: fields.pop(name) for name in MODEL_SETTINGS})
        depths = [depth_file] if depth_file else []
        request = read_request({"question": "?", "views": "single", **fields}, [image], depths, settings)
        trace: list[Any] = []
        models, prepared = prepare_here(load_models_here(settings), request, settings, StageTimer())
        tokens = see(models, prepared, trace)
        pixels, grid = decode_image(request.images[0], settings.max_image_px), tokens.entry_grid
        assert grid is not None, "tokens of views begin on a grid"
        source = tokens.source[0].cpu().numpy()
        drawn = strip_of(pixels, trace, grid) if strip else draw_groups(pixels, source, grid)
        drawn.save(out, "PNG")
    unit = "patches" if tokens.cell == (1, 1) else f"cells of {tokens.cell[0]} x {tokens.cell[1]} patches"
    left = tokens.size.shape[1] - tokens.num_prefix
    click.echo(f"{tokens.source.shape[1]} {unit} in {left} tokens: {out}")


@with_options(*INSPECT_OPTIONS)
@app.command()
@click.argument("file", type=FILE)
@click.option("--image", type=FILE, help="Image that must show the same view.")
@click.option("--out", type=FILE, help="PNG to write: the depth as it was read.")
@click.option("--json", "as_json", is_flag=True, help="Print the response of POST /depth/inspect.")
def depth(file: Path, image: Path | None, out: Path | None, as_json: bool, **fields: str | None) -> None:
    """Show how a depth file is read, and draw it.

    FILE is a PNG, JPEG, TIFF, NPY or another of the formats that the documentation lists.
    """
    from depth import depth_picture
    from service.pipeline.inspection import inspect
    from service.request.schemas import DepthFields
    from service.request.validation import validated

    with exit_on_errors():
        given = {name: value for name, value in fields.items() if value is not None}
        checked = validated(DepthFields, given, strict=False)
        pixels = None if image is None else image.read_bytes()
        read, inspection = inspect(file.read_bytes(), pixels, checked, load_settings().max_image_px)
        if out is not None:
            depth_picture(read).save(out, "PNG")
    if as_json:
        click.echo(inspection.model_dump_json(indent=2))
    else:
        print_inspection(inspection)


@with_options(MODEL_OPTION, *MERGE_OPTIONS)
@app.command()
@click.option("--plot", type=FILE, help="PNG to write: tokens at every layer.")
def plan(plot: Path | None, model: str | None, **fields: Any) -> None:
    """Print how many tokens every layer keeps.

    Only the shape of the model is read, no weights.
    """
    from service.request.schemas import AUTO
    from tosa import make_plan
    from vlm.load import load_shape
    from vlm.overlay import plot_tokens

    with exit_on_errors():
        settings = load_settings(model=model)
        checked = read_fields({"question": "?", **fields}, settings)
        if checked.method == AUTO:
            fail("auto chooses for a picture: name a method")
        planned = make_plan(checked.merge_spec(has_depth=False), load_shape(settings.model))
        if plot is not None:
            plot_tokens([planned], plot)
    click.echo(planned.table())
    click.echo(
        f"{planned.method}: {planned.tokens_in} -> {planned.tokens_out} patch tokens, "
        f"keep_ratio {planned.keep_ratio:.4g}, {planned.flops() / 1e9:.3g} GFLOPs per image, "
        f"{planned.flops_ratio:.2f} of those without merging"
    )


@app.command()
@click.argument("folder", type=FILE)
def manifest(folder: Path) -> None:
    """Write SHA256SUMS for a checkpoint.

    FOLDER is a checkpoint in Hugging Face format. Its files are checked against SHA256SUMS when it is loaded.
    """
    from vlm.checkpoint_files import ManifestError, write_manifest

    try:
        click.echo(f"wrote {write_manifest(folder)}")
    except ManifestError as error:
        fail(str(error))
    except OSError as error:
        fail(os_error_message(error))


app.add_command(mcp)
app.add_command(scene)
app.add_command(check)
app.add_command(models)
app.add_command(language_model)
app.add_command(calibrate)
