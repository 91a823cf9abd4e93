"""`tosa-vqa check` and `tosa-vqa models`: what will work with a checkpoint, before weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from service.cli.errors import exit_on_errors
from service.cli.in_process import load_settings

if TYPE_CHECKING:
    from vlm.check import MethodCheck, ModelCheck

NOTES = """tokens: visual tokens of a picture of 640 x 480 px as the model's own processor shows it; single:
as one squeezed view. Both are without merging and follow from the sizes in the configs; bfloat16 is 2 bytes
for each parameter. Licences and parameters are from public copies of the model cards and lists of files:
read the card before use. Nothing was downloaded for this list. {others} can be loaded too. All methods run
with all families: tosa-vqa check MODEL says what each saves."""


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def check(model: str, as_json: bool) -> None:
    """Say what will work with a model, without its weights.

    MODEL is an embedded name, a folder or a hub id, of which only the settings are downloaded. A model that
    would be refused ends with exit code 2 and a sentence that says what to do.
    """
    from vlm.check import check as check_model

    with exit_on_errors():
        found = check_model(model, require_manifest=load_settings().require_manifest)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        print_check(found)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def models(as_json: bool) -> None:
    """List the families that load, and public checkpoints of them.

    The numbers are not measured: no checkpoint was downloaded for this list.
    """
    from vlm.known import KNOWN

    if as_json:
        click.echo(json.dumps([asdict(each) | {"bfloat16_gb": each.bfloat16_gb} for each in KNOWN], indent=2))
        return
    rows: list[tuple[str, ...]] = [
        ("family", "checkpoint", "parameters", "bfloat16", "tokens", "single", "licence")
    ]
    for each in KNOWN:
        size = f"{each.parameters:.1f} B", f"{each.bfloat16_gb:.1f} GB"
        rows.append((each.family, each.id, *size, *map(str, each.tokens), each.licence))
    click.echo(f"{_aligned(rows)}\n\n{NOTES.format(others=_others())}")


def _others() -> str:
    from vlm.families import FAMILIES
    from vlm.known import KNOWN

    return ", ".join(name for name in FAMILIES if name not in {each.family for each in KNOWN})


def print_check(found: ModelCheck) -> None:
    """Print what will work as tables."""
    from vlm.check import FRAMES, KEEP_RATIO

    rows = [
        ("model", found.id if found.adapter_of is None else f"{found.id}, LoRA of {found.adapter_of}"),
        ("family", f"{found.family} ({found.model_class})"),
        ("tower", f"{found.tower}, {found.tower_layers} layers run, {_cells(found)}"),
        ("dtype", "that of the weights" if found.dtype == "weights" else found.dtype),
        ("quantised by", found.quantised or "nothing"),
        ("parameters", f"{found.parameters / 1e6:,.1f} million, {_memory(found)} of memory"),
        ("views", f"{found.default_views} where a request names none"),
    ]
    click.echo(_aligned(rows))
    for each in found.views:
        of = f"{FRAMES} frames" if "video" in each.views else "a picture"
        patches = f"{each.count} x {each.grid[0]} x {each.grid[1]} patches"
        click.echo(
            f"\nviews {', '.join(each.views)}: {of} of 640 x 480 px is {patches} and {each.tokens} "
            f"visual tokens. With keep_ratio {KEEP_RATIO}:"
        )
        click.echo(_aligned([("method", "tokens", "FLOPs", "saves"), *map(_row, each.methods)]))


def _row(method: MethodCheck) -> tuple[str, str, str, str]:
    if method.refusal is not None:
        return method.method, "-", "-", f"does not run: {method.refusal}"
    where = {"vit": "work of the encoder", "lm": "tokens of the language model"}
    saved = ", ".join(where[each] for each in method.saves) or "nothing"
    return method.method, str(method.tokens), f"{method.vit_flops_ratio:.2f}", saved


def _cells(found: ModelCheck) -> str:
    rows, columns = found.cell
    return "merges single patches" if found.cell == (1, 1) else f"merges cells of {rows} x {columns} patches"


def _memory(found: ModelCheck) -> str:
    return "unknown bytes" if found.weight_bytes is None else f"{found.weight_bytes / 1e9:,.2f} GB"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Write rows in columns, whatever the width of the terminal: they are searched and cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
