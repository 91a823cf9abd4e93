"""Run a public benchmark by its official protocol: the benchmarks and the options they share.

python -m evals.runners vqav2 --data FOLDER --out FOLDER --model room-tiny --method tosa --keep-ratio 0.25
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from evals.machine import write_result
from evals.runners.answerers import EngineAnswerer, HttpAnswerer, RunError, Spec
from evals.runners.benchmark import Benchmark, report, texts_of
from evals.runners.geometry import check_places
from evals.runners.gqa import GQA
from evals.runners.items import DatasetError, check_items
from evals.runners.openeqa import OPENEQA
from evals.runners.run import answers
from evals.runners.scanqa import SCANQA
from evals.runners.sqa3d import SQA3D
from evals.runners.vqav2 import VQAV2
from evals.runners.vqav2_counting import VQAV2_COUNTING
from evals.runners.vsibench import VSIBENCH
from service.cli.errors import CommandGroup, exit_on_errors, fail
from service.cli.in_process import load_settings, read_fields
from service.cli.options import DEPTH_OPTIONS, FILE, MERGE_OPTIONS
from service.request.schemas import AskFields, VqaFields
from service.request.validation import check_fields
from service.roomqa.condition import Condition, parse_condition

BENCHMARKS: tuple[Benchmark, ...] = (OPENEQA, GQA, VQAV2, VQAV2_COUNTING, SCANQA, SQA3D, VSIBENCH)
"""The benchmarks; each becomes a command of its name."""


class _ConditionType(click.ParamType):
    """A condition as `parse_condition` reads it."""

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        try:
            return parse_condition(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


CONDITION = _ConditionType()
RUN_OPTIONS = (
    click.Option(["--data"], type=FILE, required=True, help="Folder with the official files."),
    click.Option(["--out"], type=FILE, required=True, help="Folder for answers, predictions and report."),
    click.Option(["--limit"], type=click.IntRange(min=1), help="Ask only the first questions."),
    click.Option(["--condition"], type=CONDITION, help="Spoil every image: dark, noise:3, ..."),
)
URL_OPTION = click.Option(["--url"], help="Ask this running server, http://host:port.")
CLIENT_OPTIONS = (
    click.Option(["--concurrency"], type=click.IntRange(min=1), help="Open requests to that server; 8."),
    click.Option(["--api-key-file"], type=FILE, help="File with the API key for that server."),
)
ENGINE_OPTIONS = (
    click.Option(["--model"], help="Without --url: embedded name, folder or hub id."),
    click.Option(["--depth-model"], help="Depth estimator, like --model; or none."),
    click.Option(["--device"], help="cpu, cuda, ..."),
    click.Option(["--dtype"], help="auto, float32, bfloat16 or float16."),
    click.Option(["--batch-size"], type=click.IntRange(min=1), help="Most images in one batch; 8."),
)
JSON_OPTION = click.Option(["--merge-json"], help="All merge and depth fields as one JSON object.")
SPEC_OPTIONS = (*MERGE_OPTIONS, *DEPTH_OPTIONS)
BY_PROTOCOL = {*AskFields.model_fields, "stream"} - {"cache", *(option.name for option in DEPTH_OPTIONS)}
"""Fields of a request that a benchmark fixes."""


def main() -> None:
    """Run the command line."""
    command_line(BENCHMARKS)(prog_name="python -m evals.runners")


def command_line(benchmarks: Iterable[Benchmark]) -> click.Group:
    """Return a group with a command for each benchmark."""
    commands = [command(benchmark) for benchmark in benchmarks]
    return CommandGroup(commands=commands, help=__doc__, context_settings={"max_content_width": 110})


def command(benchmark: Benchmark) -> click.Command:
    """Return the command that runs a benchmark."""

    def callback(
        data: Path, out: Path, limit: int | None, condition: Condition | None, **options: Any
    ) -> None:
        given = {name: value for name, value in options.items() if value not in (None, ())}
        try:
            with exit_on_errors():
                run(benchmark, data, out, limit, given, condition)
        except (DatasetError, RunError) as error:
            fail(str(error))

    params: list[click.Parameter] = [
        *(*RUN_OPTIONS, *benchmark.load_options, *benchmark.finish_options),
        *(URL_OPTION, *CLIENT_OPTIONS, *ENGINE_OPTIONS, JSON_OPTION, *SPEC_OPTIONS),
    ]
    return click.Command(benchmark.name, callback=callback, params=params, help=benchmark.about)


def run(
    benchmark: Benchmark,
    data: Path,
    out: Path,
    limit: int | None,
    given: Mapping[str, Any],
    condition: Condition | None = None,
) -> None:
    """Load, ask, score and write: answers.jsonl, what the benchmark writes, and report.json."""
    spec = spec_of(given)
    load_options = _select(given, benchmark.load_options)
    entries = benchmark.load(data, **load_options)[:limit]
    entries = [replace(entry, item=replace(entry.item, condition=condition)) for entry in entries]
    items = [entry.item for entry in entries]
    check_items(items)
    check_places(items, spec)
    with closing(answerer_of(given, spec)) as answerer:
        found = answers(items, answerer, out / "answers.jsonl")
        settings = {"name": answerer.name, **answerer.settings}
    finish_options = _select(given, benchmark.finish_options)
    scores = benchmark.finish(entries, texts_of(entries, found), out, **finish_options)
    result = {
        "benchmark": benchmark.name,
        "options": json.loads(json.dumps({**load_options, "limit": limit} | _shown(condition), default=str)),
        **report(entries, found, scores, settings),
    }
    write_result(out / "report.json", result)
    show(result, out)


def spec_of(given: Mapping[str, Any]) -> Spec:
    """Return the merge and depth fields that every question is sent with. Raises ServiceError, RunError."""
    fields = _select(given, SPEC_OPTIONS)
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
    refused, used = (ENGINE_OPTIONS, CLIENT_OPTIONS) if "url" in given else (CLIENT_OPTIONS, ENGINE_OPTIONS)
    wrong = [option.opts[0] for option in refused if option.name in given]
    if wrong:
        why = "the server of --url decides that" if "url" in given else "only with --url"
        raise RunError(f"{', '.join(wrong)}: {why}")
    settings = _select(given, used)
    if "url" in given:
        key = settings.pop("api_key_file", None)
        return HttpAnswerer(given["url"], spec, api_key=key and key.read_text().strip(), **settings)
    disable_progress_bar()
    return EngineAnswerer(settings.pop("model", load_settings().model), spec, **settings)


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


def _shown(condition: Condition | None) -> dict[str, str]:
    return {} if condition is None else {"condition": condition.label}


def _select(given: Mapping[str, Any], options: Iterable[click.Option]) -> dict[str, Any]:
    names = {option.name for option in options}
    return {name: value for name, value in given.items() if name in names}


if __name__ == "__main__":
    main()
