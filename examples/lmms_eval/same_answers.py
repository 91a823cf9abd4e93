"""Repeat over /vqa what lmms-eval asked over /v1/chat/completions, and count the answers that agree.

python -m examples.lmms_eval.same_answers runs/lmms_eval/tosa --url http://127.0.0.1:8000
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from evals.machine import write_result
from evals.runners.answerers import HttpAnswerer
from evals.runners.asking import RunError
from evals.runners.items import Item
from examples.lmms_eval.write_roomqa import OUT
from service.api.chat.request import DEPTH_FIELDS
from service.cli.errors import fail
from service.cli.options import FILE

FAILED = "[LMMS_EVAL_REQUEST_FAILED"
"""Prefix of the answer that lmms-eval inserts for a failed request; it is scored like any other."""


def compare(run: Path, data: Path, url: str) -> dict[str, Any]:
    """Return the scores in lmms-eval's output folder `run`, and how many answers /vqa repeats."""
    results, samples = _newest(run, "results.json"), _newest(run, "samples_roomqa.jsonl")
    logged = json.loads(results.read_text())
    theirs = {one["doc_id"]: one["filtered_resps"] for one in map(json.loads, _lines(samples))}
    spec = spec_of(logged["config"]["model_args"])
    rows = [json.loads(line) for line in _lines(data / "test.jsonl")]
    items = [
        Item(str(at), row["question"], (Path(row["image"]),)) for at, row in enumerate(rows) if at in theirs
    ]
    answerer = HttpAnswerer(url, spec, concurrency=4)
    ours = {int(answer.id): answer.text for answer in answerer.answer(items)}
    return {
        "client": logged["config"]["model"],
        "spec": spec,
        "model": answerer.settings["model"],
        "questions": len(theirs),
        "exact_match": logged["results"]["roomqa"]["exact_match,none"],
        "failed": sum(text.startswith(FAILED) for text in theirs.values()),
        "same_as_vqa": sum(theirs[at] == ours[at] for at in theirs),
    }


def spec_of(model_args: str) -> dict[str, Any]:
    """Read merge and depth from lmms-eval's model_args, as fields of a question."""
    objects = {
        name: json.JSONDecoder().raw_decode(model_args, found.end())[0]
        for name in ("merge", "depth")
        if (found := re.search(rf"(?:^|,){name}=", model_args))
    }
    depth: Mapping[str, Any] = objects.get("depth", {})
    return {"method": "none", **objects.get("merge", {}), **{DEPTH_FIELDS[k]: v for k, v in depth.items()}}


@click.command(context_settings={"show_default": True})
@click.argument("runs", type=FILE, nargs=-1, required=True)
@click.option("--url", default="http://127.0.0.1:8000", help="Server that was asked.")
@click.option("--data", type=FILE, default=OUT, help="Folder with test.jsonl.")
@click.option("--lmms-eval", default="unknown", help="Version of lmms-eval, for the result.")
@click.option("--out", type=FILE, help="Result to write.")
def main(runs: tuple[Path, ...], url: str, data: Path, lmms_eval: str, out: Path | None) -> None:
    """Count the answers on which lmms-eval and /vqa agree.

    RUNS are folders that lmms-eval wrote with --log_samples.
    """
    try:
        compared = {run.name: compare(run, data, url) for run in runs}
    except (OSError, RunError) as error:
        fail(str(error))
    for name, one in compared.items():
        click.echo(
            f"{name}: {one['same_as_vqa']} of {one['questions']} answers agree, {one['failed']} failed"
        )
    if out is not None:
        write_result(out, {"lmms_eval": lmms_eval, "runs": compared})


def _newest(folder: Path, ending: str) -> Path:
    found = sorted(folder.rglob(f"*_{ending}"))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no *_{ending}: run lmms-eval with --output_path and --log_samples"
        )
    return found[-1]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


if __name__ == "__main__":
    main()
