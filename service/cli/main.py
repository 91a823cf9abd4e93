"""The command line.

Bad input ends with exit code 2 and one sentence; heavy modules are imported by the commands that need them.
Commands of other packages are found by their entry points, see `service.cli.plugins`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.errors import clear_refusals, fail, os_sentence
from service.cli.options import (
    DEPTH_OPTIONS,
    INSPECT_OPTIONS,
    MERGE_OPTIONS,
    DepthModelOption,
    DepthsOption,
    DeviceOption,
    EngineOption,
    ImagesOption,
    ModelOption,
    ServeEngine,
    load_models_here,
    load_settings,
    prepare_here,
    read_fields,
    read_request,
    takes,
)
from service.cli.plugins import PluginGroup
from service.cli.render import print_answer, print_inspected

app = typer.Typer(
    cls=PluginGroup,
    help="Ask questions about RGB-D frames; visual tokens are merged while the model looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    app(prog_name="tosa-vqa")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    model: ModelOption = None,
    depth_model: DepthModelOption = None,
    device: DeviceOption = None,
    engine: EngineOption = ServeEngine.PROCESS,
    replicas: Annotated[int, typer.Option(help="Replicas of --engine ray.", min=1, max=64)] = 2,
) -> None:
    """Serve POST /vqa over HTTP until stopped; with SIGTERM or Ctrl-C open requests are answered first."""
    from service.server.process import exit_on_signal, exit_process

    if engine is ServeEngine.RAY:
        from service.ray_serve.cluster import RayMissing, serve_on_ray

        with clear_refusals():
            settings = load_settings(model=model, depth_model=depth_model, device=device)
        try:
            raise typer.Exit(serve_on_ray(settings, host, port, replicas))
        except RayMissing as error:
            fail(str(error))
    with exit_on_signal():
        with clear_refusals():
            settings = load_settings(model=model, depth_model=depth_model, device=device)
        from service.app import create_app
        from service.server.uvicorn_server import serve as serve_http

        try:
            application = create_app(settings)
        except ValueError as error:  # keys or traces that cannot be
            fail(str(error))
        exit_process(serve_http(application, host, port, settings))


@app.command()
@takes(MERGE_OPTIONS, DEPTH_OPTIONS)
def ask(
    image: ImagesOption,
    question: Annotated[str, typer.Option(help="What to ask.")],
    depth_files: DepthsOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 32,
    model: ModelOption = None,
    depth_model: DepthModelOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the service would answer.")] = False,
    **fields: Any,
) -> None:
    """Answer one question in this process, without a server."""
    from service.engine.batch_runner import answer_here
    from service.pipeline.response import respond
    from service.timing import StageTimer

    fields |= {"question": question, "max_new_tokens": max_new_tokens}
    with clear_refusals():
        settings = load_settings(model=model, depth_model=depth_model, device=device)
        asked = read_request(fields, image, depth_files or [], settings)
        timer = StageTimer()
        models, prepared = prepare_here(load_models_here(settings), asked, settings, timer)
        answer = respond(models.vlm, prepared, answer_here(models, prepared, timer), timer, "cli")
    if as_json:
        typer.echo(answer.model_dump_json(indent=2, exclude_unset=True))
    else:
        print_answer(answer)


@app.command()
@takes(MERGE_OPTIONS, DEPTH_OPTIONS)
def overlay(
    image: Annotated[Path, typer.Option(help="JPEG, PNG or WebP.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    depth_file: Annotated[Path | None, typer.Option("--depth", help="Depth of the image.")] = None,
    strip: Annotated[
        bool, typer.Option("--strip", help="Draw a film strip of the layers that merged.")
    ] = False,
    model: ModelOption = None,
    depth_model: DepthModelOption = None,
    device: DeviceOption = None,
    **fields: Any,
) -> None:
    """Draw which patches of an image were merged, at the end or layer by layer."""
    from service.pipeline.images import decode_image
    from service.pipeline.prepare import see
    from service.timing import StageTimer
    from vlm.overlay import draw_groups, strip_of

    fields |= {"question": "?"}
    with clear_refusals():
        settings = load_settings(model=model, depth_model=depth_model, device=device)
        asked = read_request(fields, [image], [depth_file] if depth_file else [], settings)
        trace: list[Any] = []
        models, prepared = prepare_here(load_models_here(settings), asked, settings, StageTimer())
        tokens = see(models, prepared, trace)
        picture, grid = decode_image(asked.images[0], settings.max_image_px), models.vlm.shape.grid
        end = tokens.source[0].cpu().numpy()
        drawn = strip_of(picture, trace, grid) if strip else draw_groups(picture, end, grid)
        drawn.save(out, "PNG")
    typer.echo(f"{tokens.source.shape[1]} patches in {tokens.x.shape[1]} tokens: {out}")


@app.command()
@takes(INSPECT_OPTIONS)
def depth(
    file: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF or NPY.")],
    image: Annotated[Path | None, typer.Option(help="Image that must show the same view.")] = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write: the depth as it is understood.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the service would answer.")] = False,
    **fields: Any,
) -> None:
    """Say what a depth file is understood as, and draw it."""
    from depth import depth_picture
    from service.pipeline.inspection import inspect
    from service.request.schemas import DepthFields
    from service.request.validation import validated

    with clear_refusals():
        given = {name: value for name, value in fields.items() if value is not None}
        told = validated(DepthFields, given, strict=False)
        pixels = None if image is None else image.read_bytes()
        read, seen = inspect(file.read_bytes(), pixels, told, load_settings().max_image_px)
        if out is not None:
            depth_picture(read).save(out, "PNG")
    if as_json:
        typer.echo(seen.model_dump_json(indent=2))
    else:
        print_inspected(seen)


@app.command()
@takes(MERGE_OPTIONS)
def plan(
    model: ModelOption = None,
    plot: Annotated[Path | None, typer.Option(help="PNG to write: tokens at every layer.")] = None,
    **fields: Any,
) -> None:
    """Print how many tokens every layer keeps, from the shape of the model alone."""
    from service.pipeline.planning import plan_request
    from vlm.load import load_shape
    from vlm.overlay import plot_tokens

    with clear_refusals():
        settings = load_settings(model=model)
        asked = read_fields({"question": "?", **fields}, settings)
        planned = plan_request(asked, has_depth=False, shape=load_shape(settings.model))
        if plot is not None:
            plot_tokens([planned], plot)
    typer.echo(planned.table())
    typer.echo(
        f"{planned.method}: {planned.tokens_in} -> {planned.tokens_out} patch tokens, "
        f"keep_ratio {planned.keep_ratio:.4g}, {planned.flops() / 1e9:.3g} GFLOPs per image, "
        f"{planned.flops_ratio:.2f} of those without merging"
    )


@app.command()
def manifest(folder: Annotated[Path, typer.Argument(help="Checkpoint in Hugging Face format.")]) -> None:
    """Write SHA256SUMS: what every file of a checkpoint must be when it is loaded."""
    from checkpoints import ManifestError, write_manifest

    try:
        typer.echo(f"wrote {write_manifest(folder)}")
    except ManifestError as error:
        fail(str(error))
    except OSError as error:
        fail(os_sentence(error))
