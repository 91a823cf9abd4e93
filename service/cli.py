"""The command line, and the composition root: it alone may use evals, inside the one command that does.

Bad input ends with exit code 2 and one sentence; heavy modules are imported by the commands that need them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from service.schemas import VqaRequest
    from service.settings import Settings

app = typer.Typer(
    help="Ask questions about RGB-D frames; visual tokens are merged while the model looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ImagesOption = Annotated[list[Path], typer.Option("--image", help="JPEG, PNG or WebP; repeat for several.")]
DepthsOption = Annotated[list[Path] | None, typer.Option("--depth", help="One for each image, in order.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Embedded name, folder or hub id.")]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ...")]
MethodOption = Annotated[str | None, typer.Option("--method", help="none, tome, tosa; see /methods.")]
KeepRatioOption = Annotated[str | None, typer.Option("--keep-ratio", help="Share of visual tokens to keep.")]
ROption = Annotated[str | None, typer.Option("--r", help="Tokens to remove per layer: 8, or 8,8,4.")]
AlphaOption = Annotated[str | None, typer.Option("--alpha", help="increase, decrease, uniform, or numbers.")]
DepthScaleOption = Annotated[str | None, typer.Option("--depth-scale", help="Depth units per metre.")]


def main() -> None:
    """Run the command line."""
    app(prog_name="tosa-vqa")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    model: ModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Serve POST /vqa over HTTP until stopped."""
    import uvicorn

    from service.app import create_app

    def stop() -> None:
        server.should_exit = True

    with _clear_refusals():
        application = create_app(_settings(model=model, device=device), on_load_failure=stop)
    server = uvicorn.Server(
        uvicorn.Config(application, host=host, port=port, http="h11", server_header=False)
    )
    _run(server)
    if application.state.service.status == "failed":
        raise typer.Exit(1)


@app.command()
def ask(
    image: ImagesOption,
    question: Annotated[str, typer.Option(help="What to ask.")],
    depth: DepthsOption = None,
    method: MethodOption = None,
    keep_ratio: KeepRatioOption = None,
    r: ROption = None,
    alpha: AlphaOption = None,
    depth_scale: DepthScaleOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 32,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the service would answer.")] = False,
) -> None:
    """Answer one question in this process, without a server."""
    from service.pipeline import infer, prepare, respond
    from service.timing import StageTimer

    fields = {
        "question": question,
        "method": method,
        "keep_ratio": keep_ratio,
        "r": r,
        "alpha": alpha,
        "depth_scale": depth_scale,
        "max_new_tokens": str(max_new_tokens),
    }
    with _clear_refusals():
        settings = _settings(model=model, device=device)
        asked = _request(fields, image, depth or [], settings)
        vlm = _load(settings)
        timer = StageTimer()
        prepared = prepare(vlm, asked, settings, timer)
        answer = respond(vlm, prepared, infer(vlm, prepared, timer), timer, "cli")
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        _print_answer(answer)


@app.command()
def scene(
    seed: Annotated[int, typer.Option(help="Which scene.", min=0)],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
) -> None:
    """Write a synthetic room: rgb.png, depth.png (16-bit, millimetres) and scene.json with questions."""
    from evals.rooms.export import write_scene

    try:
        write_scene(seed, out)
    except OSError as error:
        _fail(_os_sentence(error))
    typer.echo(f"wrote rgb.png, depth.png and scene.json to {out}")


@app.command()
def overlay(
    image: Annotated[Path, typer.Option(help="JPEG, PNG or WebP.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    depth: Annotated[Path | None, typer.Option(help="Depth of the image.")] = None,
    method: MethodOption = None,
    keep_ratio: KeepRatioOption = None,
    r: ROption = None,
    alpha: AlphaOption = None,
    depth_scale: DepthScaleOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Draw which patches of an image were merged."""
    from service.images import decode_image
    from service.overlay import draw_groups
    from service.pipeline import prepare, see
    from service.timing import StageTimer

    fields = {"question": "?", "method": method, "keep_ratio": keep_ratio, "r": r, "alpha": alpha}
    with _clear_refusals():
        settings = _settings(model=model, device=device)
        asked = _request(fields | {"depth_scale": depth_scale}, [image], [depth] if depth else [], settings)
        vlm = _load(settings)
        tokens = see(vlm, prepare(vlm, asked, settings, StageTimer()))
        picture = decode_image(asked.images[0], settings.max_image_px)
        draw_groups(picture, tokens.source[0].cpu().numpy(), vlm.shape.grid).save(out, "PNG")
    typer.echo(f"{tokens.source.shape[1]} patches in {tokens.x.shape[1]} tokens: {out}")


def _settings(**given: Any) -> Settings:
    from service.settings import Settings

    return Settings(**{name: value for name, value in given.items() if value is not None})


def _request(
    fields: dict[str, str | None], images: list[Path], depths: list[Path], settings: Settings
) -> VqaRequest:
    from service.schemas import VqaRequest, check_counts, check_fields

    given = {name: value for name, value in fields.items() if value is not None}
    asked = VqaRequest(
        check_fields(given, settings, strict=False),
        tuple(path.read_bytes() for path in images),
        tuple(path.read_bytes() for path in depths),
    )
    check_counts(asked, settings)
    return asked


def _load(settings: Settings) -> Any:
    from vlm import load_vlm

    return load_vlm(settings.model, settings.device, settings.torch_dtype)


@contextmanager
def _clear_refusals() -> Iterator[None]:
    """Turn every refusal of ours into exit code 2 and one sentence."""
    from pydantic import ValidationError
    from transformers.utils import logging as transformers_logging

    from depth import DepthError
    from service.errors import ApiError, to_api_error
    from tosa import PlanError
    from vlm import VlmError

    transformers_logging.disable_progress_bar()
    try:
        yield
    except (ApiError, DepthError, PlanError) as error:
        _fail(_sentence(to_api_error(error)))
    except VlmError as error:
        _fail(str(error))
    except ValidationError as error:
        _fail("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
    except OSError as error:
        _fail(_os_sentence(error))


def _sentence(refusal: Any) -> str:
    about = f" ({refusal.field})" if refusal.field else ""
    choices = f" Choose from: {', '.join(refusal.choices)}." if refusal.choices else ""
    return f"{refusal.message}{about}{choices}"


def _os_sentence(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


def _run(server: Any) -> None:
    import logging
    import signal

    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    # After a clean stop uvicorn raises the signal again; being asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run()
    except KeyboardInterrupt:
        sys.exit(0)


def _print_answer(answer: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    merge, depth, used = answer["merge"], answer["depth"], answer["usage"]
    table = Table(show_header=False, box=None)
    table.add_row("answer", Text(answer["answer"], style="bold"))
    table.add_row("model", f"{answer['model']['id']} ({answer['model']['revision']})")
    table.add_row("method", f"{merge['method']}, keep_ratio {merge['keep_ratio']}")
    table.add_row("visual tokens", f"{merge['tokens_in']} -> {merge['tokens_out']}")
    table.add_row("vision FLOPs", f"{merge['vit_flops_ratio']:.2f} of those without merging")
    table.add_row(
        "depth", "not used" if depth is None else f"{depth['kind']}, {depth['valid_ratio']:.0%} valid"
    )
    table.add_row("prompt, answer", f"{used['prompt_tokens']}, {used['completion_tokens']} tokens")
    for stage, ms in answer["timings_ms"].items():
        table.add_row(stage, "-" if ms is None else f"{ms:.1f} ms")
    Console().print(table)
