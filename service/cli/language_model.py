"""`tosa-vqa language-model`: write what a vLLM server loads."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli.errors import exit_on_errors
from service.cli.in_process import load_settings

if TYPE_CHECKING:
    from vlm.language_checkpoint import LanguageCheckpoint

PORT = 8100
SERVER = "python -m vllm.entrypoints.openai.api_server"
PICTURES = ("--enable-scale-out", "--enable-mm-embeds", "--skip-mm-profiling")
"""Take features of pictures, and reserve no memory for a tower that sees none."""
COUNTS = ("--enable-prompt-tokens-details", "--enable-per-request-metrics")


@click.command("language-model")
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write to.")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def language_model(model: str, out: Path, as_json: bool) -> None:
    """Write the language model of a checkpoint alone, for a vLLM server.

    MODEL is an embedded name, a folder or a hub id. OUT gets a checkpoint of the language model, its
    tokenizer, and tosa_probe.json: known answers, by which a service sees at its start that the server holds
    the same weights. Of Qwen2.5-VL and Qwen3-VL, which vLLM loads as they are, it gets known answers alone.
    """
    from vlm.language_checkpoint import write_language_model

    with exit_on_errors():
        written = write_language_model(model, out, require_manifest=load_settings().require_manifest)
    commands = {"server": server_command(written), "service": service_command(model, out)}
    if as_json:
        click.echo(json.dumps({**asdict(written), "folder": str(written.folder), **commands}, indent=2))
        return
    size = f"{written.parameters / 1e6:,.1f} million parameters in {written.dtype}"
    what = f"known answers of {written.model_class}" if written.pictures else written.model_class
    click.echo(
        f"wrote {what}, {size}, to {out}\n\n"
        f"Serve it where vLLM is installed:\n  {commands['server']}\n\n"
        f"and put this service in front of it:\n  {commands['service']}"
    )


def server_command(written: LanguageCheckpoint) -> str:
    """Return the command that serves what was written."""
    from vlm import MAX_TOP_LOGPROBS

    options = {
        "--model": written.model,
        "--dtype": written.dtype,
        "--max-model-len": str(written.max_tokens),
        "--generation-config": "vllm",
        "--structured-outputs-config.backend": "guidance",
        "--host": "127.0.0.1",
        "--port": str(PORT),
    }
    if written.pictures:
        limits = {"image": int(written.needs_tower), "video": 0}
        most = str(MAX_TOP_LOGPROBS + 1)  # the chosen token's too
        options |= {"--limit-mm-per-prompt": json.dumps(limits), "--max-logprobs": most}
    inputs = PICTURES if written.pictures else ("--enable-prompt-embeds",)
    given = [part for option in options.items() for part in option]
    return f"{SERVER} {shlex.join([*given, *inputs, *COUNTS])}"


def service_command(model: str, folder: Path) -> str:
    """Return the command that serves the rest of the model in front of it."""
    address = f"http://127.0.0.1:{PORT}"
    given = [
        "--model",
        model,
        "--language",
        "vllm",
        "--language-url",
        address,
        "--language-probe",
        str(folder),
    ]
    return f"tosa-vqa serve {shlex.join(given)}"
