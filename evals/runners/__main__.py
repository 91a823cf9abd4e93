"""Run a public benchmark by its official protocol: the benchmarks and the options they share.

python -m evals.runners vqav2 --data FOLDER --out FOLDER --model room-tiny --method tosa --keep-ratio 0.25
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from evals.machine import write_result
from evals.runners.answerers import EngineAnswerer, HttpAnswerer, RunError, Spec
from evals.runners.benchmark import Benchmark, report, texts_of
from evals.runners.gqa import GQA
from evals.runners.items import DatasetError, check_items
from evals.runners.openeqa import OPENEQA
from evals.runners.run import answers
from evals.runners.scanqa import SCANQA
from evals.runners.sqa3d import SQA3D
from evals.runners.vqav2 import VQAV2
from evals.runners.vqav2_counting import VQAV2_COUNTING
from evals.runners.vsibench import VSIBENCH
from service.cli.errors import clear_refusals, fail
from service.cli.options import DEPTH_OPTIONS, MERGE_OPTIONS, load_settings, read_fields, takes
from service.request.schemas import AskFields, VqaFields
from service.request.validation import check_fields

BENCHMARKS: tuple[Benchmark, ...] = (OPENEQA, GQA, VQAV2, VQAV2_COUNTING, SCANQA, SQA3D, VSIBENCH)
"""The benchmarks; each becomes a command of its name."""

WHO_OPTIONS: Mapping[str, Any] = {
    "url": Annotated[str | None, typer.Option(help="Ask this running server, http://host:port.")],
    "concurrency": Annotated[int | None, typer.Option(min=1, help="Questions on the way to it; 8.")],
    "api_key_file": Annotated[Path | None, typer.Option(help="File that holds the key to show it.")],
    "model": Annotated[str | None, typer.Option(help="Without --url: embedded name, folder or hub id.")],
    "depth_model": Annotated[str | None, typer.Option(help="Depth estimator, like --model; or none.")],
    "device": Annotated[str | None, typer.Option(help="cpu, cuda, ...")],
    "dtype": Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")],
    "batch_size": Annotated[int | None, typer.Option(min=1, help="Most images seen at once; 8.")],
    "merge_json": Annotated[str | None, typer.Option(help="All merge and depth fields as one JSON object.")],
}
OF_THE_SERVER = ("model", "depth_model", "device", "dtype", "batch_size")
OF_THE_CLIENT = ("concurrency", "api_key_file")
BY_PROTOCOL = {*AskFields.model_fields, "stream"} - {*DEPTH_OPTIONS, "cache"}
"""Fields of a request that a benchmark fixes."""


def main() -> None:
    """Run the command line."""
    command_line(BENCHMARKS)(prog_name="python -m evals.runners")


def command_line(benchmarks: Iterable[Benchmark]) -> typer.Typer:
    """Make a command of each benchmark."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback(help=__doc__)(lambda: None)  # so that a single benchmark is a subcommand, too
    for benchmark in benchmarks:
        add(app, benchmark)
    return app


def add(app: typer.Typer, benchmark: Benchmark) -> None:
    """Make a command of a benchmark."""

    @takes(benchmark.load_options, benchmark.finish_options, WHO_OPTIONS, MERGE_OPTIONS, DEPTH_OPTIONS)
    def command(
        data: Annotated[Path, typer.Option(help="Folder with the official files.")],
        out: Annotated[Path, typer.Option(help="Folder for answers, predictions and report.")],
        limit: Annotated[int | None, typer.Option(min=1, help="Ask only the first questions.")] = None,
        **given: Any,
    ) -> None:
        try:
            with clear_refusals():
                run(benchmark, data, out, limit, {n: v for n, v in given.items() if v not in (None, [])})
        except (DatasetError, RunError) as error:
            fail(str(error))

    app.command(benchmark.name, help=benchmark.about)(command)


def run(benchmark: Benchmark, data: Path, out: Path, limit: int | None, given: Mapping[str, Any]) -> None:
    """Load, ask, score and write: answers.jsonl, what the benchmark writes, and report.json."""
    spec = spec_of(given)
    entries = benchmark.load(data, **_those(given, benchmark.load_options))[:limit]
    items = [entry.item for entry in entries]
    check_items(items)
    with closing(answerer_of(given, spec)) as answerer:
        found = answers(items, answerer, out / "answers.jsonl")
        settings = {"name": answerer.name, **answerer.settings}
    scores = benchmark.finish(
        entries, texts_of(entries, found), out, **_those(given, benchmark.finish_options)
    )
    options = {name: given[name] for name in benchmark.load_options if name in given}
    result = {
        "benchmark": benchmark.name,
        "options": json.loads(json.dumps({**options, "limit": limit}, default=str)),
        **report(entries, found, scores, settings),
    }
    write_result(out / "report.json", result)
    show(result, out)


def spec_of(given: Mapping[str, Any]) -> Spec:
    """Return the merge and depth fields that every question is sent with. Raises ServiceError, RunError."""
    fields = {name: given[name] for name in (*MERGE_OPTIONS, *DEPTH_OPTIONS) if name in given}
    if "merge_json" not in given:
        return _checked(read_fields({"question": "?", **fields}, load_settings()))
    if fields:
        raise RunError(f"--merge-json says everything about merging: leave out {', '.join(fields)}")
    values = _object(given["merge_json"])
    refused = sorted(BY_PROTOCOL & set(values))
    if refused:
        raise RunError(f"--merge-json is about merging and depth: leave out {', '.join(refused)}")
    return _checked(check_fields({"question": "?", **values}, load_settings(), strict=True))


def answerer_of(given: Mapping[str, Any], spec: Spec) -> EngineAnswerer | HttpAnswerer:
    """Return the answerer. Raises RunError, and what loading a model raises."""
    theirs, ours = (OF_THE_SERVER, OF_THE_CLIENT) if "url" in given else (OF_THE_CLIENT, OF_THE_SERVER)
    wrong = [f"--{name.replace('_', '-')}" for name in theirs if name in given]
    if wrong:
        why = "the server of --url decides that" if "url" in given else "only with --url"
        raise RunError(f"{', '.join(wrong)}: {why}")
    values = _those(given, dict.fromkeys(ours))
    if "url" in given:
        key = values.pop("api_key_file", None)
        return HttpAnswerer(given["url"], spec, api_key=key and key.read_text().strip(), **values)
    disable_progress_bar()
    return EngineAnswerer(values.pop("model", load_settings().model), spec, **values)


def show(result: Mapping[str, Any], out: Path) -> None:
    """Print the report in a few lines."""
    console = Console(highlight=False, soft_wrap=True)
    scored = "not scored," if result["overall"] is None else f"{result['overall']} over"
    console.print(f"{result['benchmark']}: {scored} {result['questions']} questions")
    if result["not_scored"] and result["overall"] is not None:
        console.print(f"{result['not_scored']} of them are not scored and not in that number")
    if result["mean_score_interval_95"] is not None:
        low, high = result["mean_score_interval_95"]
        console.print(f"mean score of a question, 95 % interval: {low} to {high}")
    console.print_json(data=result["scores"])
    if result["unanswered"]:
        console.print(f"unanswered: {result['unanswered']}")
    console.print(f"wrote {out / 'report.json'}", markup=False)


def _checked(fields: VqaFields) -> Spec:
    values = fields.model_dump(exclude_unset=True)
    return {"method": "none", **{name: value for name, value in values.items() if name != "question"}}


def _object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise RunError('--merge-json takes one JSON object: {"method": "tosa", "keep_ratio": 0.25}')
    return values


def _those(given: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


if __name__ == "__main__":
    main()
