"""docs/evaluate.md is true: every command parses, and ToSA's setting keeps what the release keeps, per layer.

A shell reads the commands; each program is a function that says how it was called, so that nothing runs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from evals.runners import __main__ as runners
from examples.lmms_eval import same_answers, write_roomqa
from service.api.chat.request import parse_chat
from service.cli.main import app as service_app
from service.pipeline.planning import plan_request
from service.request.schemas import VqaFields
from service.settings import Settings
from tests.service.chats import body, chat
from tosa import EncoderShape, MergePlan, MergeSpec, make_plan

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "evaluate.md"
TEXT = PAGE.read_text()
SHAPE = EncoderShape(num_layers=26, grid=(27, 27), hidden_size=1152, mlp_size=4304)
PROGRAMS = ("python", "tosa-vqa", "lmms-eval", "pip")
CALL = r"""set -euf; PATH=
say() {
  printf '%s\037' "$@"
  for name in ${!TOSA_VQA_@}; do printf '%s=%s\037' "$name" "${!name}"; done
  printf '\036'
}
"""
# What these programs were tried with: lmms-eval 0.7.3, nvidia-vlmeval 26.3.
LMMS_EVAL = ("model", "model_args", "include_path", "tasks", "batch_size", "output_path")
VLMEVALKIT = ("config", "mode", "api-nproc", "work-dir")


@dataclass(frozen=True)
class Call:
    """A program as it was called, and the settings in its environment."""

    words: tuple[str, ...]
    settings: dict[str, str]


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language, "" for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.S | re.M)
    return [text for named, text in found if named == language]


def called(script: str) -> list[Call]:
    """Let a shell read a script, and return the calls it would make."""
    programs = "".join(f'{name}() {{ say {name} "$@"; }}\n' for name in PROGRAMS)
    told = subprocess.run(
        ["bash", "-c", CALL + programs + script], capture_output=True, text=True, check=False, timeout=10
    )
    assert told.returncode == 0, told.stderr
    calls = [one.split("\037")[:-1] for one in told.stdout.split("\036")[:-1]]
    is_setting = re.compile(r"TOSA_VQA_\w+=")
    return [
        Call(
            tuple(word for word in words if not is_setting.match(word)),
            dict(word.split("=", 1) for word in words if is_setting.match(word)),
        )
        for words in calls
    ]


CALLS = called("\n".join(blocks("sh")))  # one shell reads them all: variables last


def parsed(app: typer.Typer, words: Sequence[str]) -> dict[str, Any]:
    """Parse the options of a command, run nothing, and return what was given."""
    command: Any = get_command(app)
    if hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    given = command.make_context("told", list(words)).params
    return {name: value for name, value in given.items() if value not in (None, [], ())}


def check(call: Call) -> None:
    """Raise whatever is wrong with a call."""
    Settings.model_validate(
        {name.removeprefix("TOSA_VQA_").lower(): value for name, value in call.settings.items()}
    )
    match call.words:
        case ("python", "-m", "evals.runners", *words):
            spec(parsed(runners.command_line(runners.BENCHMARKS), words))
        case ("python", "-m", "examples.lmms_eval.write_roomqa", *words):
            parsed(single(write_roomqa.main), words)
        case ("python", "-m", "examples.lmms_eval.same_answers", *words):
            parsed(single(same_answers.main), words)
        case ("python", "-m", "vlmeval.run", *words):
            flags(VLMEVALKIT, words)
        case ("tosa-vqa", *words):
            parsed(service_app, words)
        case ("lmms-eval", *words):
            lmms_eval(flags(LMMS_EVAL, words))
        case ("pip", "install", *packages):
            assert all((ROOT / one).exists() for one in packages if "/" in one)
        case _:
            raise AssertionError(f"nobody knows how to check {' '.join(call.words)}")


def single(main: Any) -> typer.Typer:
    app = typer.Typer()
    app.command()(main)
    return app


def flags(known: Sequence[str], words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    for name in known:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--log_samples", action="store_true")
    return parser.parse_args(list(words))


def spec(given: dict[str, Any]) -> dict[str, Any]:
    return dict(runners.spec_of(given))


def lmms_eval(told: argparse.Namespace) -> None:
    assert told.model in ("openai", "tosa_vqa") and (ROOT / told.include_path).is_dir()
    assert "base_url=http://127.0.0.1:8000/v1," in told.model_args
    fields = same_answers.spec_of(told.model_args)
    assert (fields["method"] != "none") == (told.model == "tosa_vqa") == ("merge=" in told.model_args)
    plan(fields)


def plan(fields: dict[str, Any]) -> MergePlan:
    return plan_request(VqaFields(question="?", **fields), has_depth=True, shape=SHAPE)


def merges(name: str) -> dict[str, Any]:
    """Return the spec of the runs that a variable of the page is about."""
    (text,) = set(re.findall(rf"^{name}='(.*)'$", TEXT, re.M))
    return spec({"merge_json": text})


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call.words)[:60])
def test_every_command_parses(call: Call) -> None:
    check(call)


def test_no_command_hides_from_this_test() -> None:
    programs = rf"^(?:\$ |\w+=\S+ )*(?:{'|'.join(PROGRAMS)}|export|curl) .*"
    assert not [line for block in blocks("") for line in re.findall(programs, block, re.M)]
    assert len(CALLS) >= 15


@pytest.mark.parametrize(
    "script",
    [
        "python -m evals.runners gqa --data d --out o --metod tosa",
        "python -m evals.runners gpa --data d --out o",
        "python -m evals.runners gqa --out o",
        'python -m evals.runners gqa --data d --out o --merge-json "{method: tosa}"',
        """python -m evals.runners gqa --data d --out o --merge-json '{"metod": "tosa"}'""",
        "TOSA_VQA_MAX_IMAGE=12 tosa-vqa serve",
        "TOSA_VQA_DTYPE=half tosa-vqa serve",
        "tosa-vqa server",
        "pip install ./examples/nothing",
        "python train.py",
    ],
)
def test_a_wrong_command_is_noticed(script: str) -> None:
    (call,) = called(script)
    with pytest.raises(Exception):  # noqa: B017  # each parser has errors of its own
        check(call)


def test_a_program_that_is_not_known_is_noticed() -> None:
    with pytest.raises(AssertionError, match="rm"):
        called("rm -r /nowhere")


def release_r(ratio: float) -> int:
    """Tokens removed per layer for a ratio, as the release counts: 384 x 384 / 14 x 14 patches, 27 layers."""
    return int(384 * 384 / (14 * 14) * (1 - ratio) / 27)


def test_the_documented_setting_keeps_what_the_release_keeps_in_every_layer() -> None:
    """Ratio 0.1: r = int(752.33 * 0.9 / 27) = 25; 26 layers run, so 729 - 26 * 25 = 79 tokens are left."""
    fields = merges("TOSA")
    assert fields["r"] == release_r(0.1) == 25 and fields["depth"] == "estimate"
    found = plan(fields)
    assert found.counts == tuple(729 - 25 * layer for layer in range(27)) and found.tokens_out == 79
    assert (found.method, found.prop_attn, found.order) == ("tosa", False, "merge")
    assert [step and step.alpha for step in found.steps] == [layer / 25 for layer in range(26)]
    assert plan(merges("OWN")).counts == plan(merges("TOME")).counts == found.counts
    assert merges("OWN")["depth_kind"] == "inverse"


def test_keep_ratio_would_not_keep_the_same() -> None:
    assert plan({"method": "tosa", "keep_ratio": 0.1}).tokens_out == 73


def test_the_table_of_counts_is_the_releases() -> None:
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.M)
    assert len(rows) == 9
    for ratio, r, out, share, work in rows:
        found = make_plan(MergeSpec("tosa", r=int(r)), SHAPE)
        assert (int(r), int(out)) == (release_r(float(ratio)), found.tokens_out)
        assert (share, work) == (f"{found.keep_ratio:.3f}", f"{found.flops_ratio:.2f}")


def test_the_plan_is_what_the_command_prints(tmp_path: Path) -> None:
    """The command reads config.json only: here one of the same shape stands for the hub's."""
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26, "patch_size": 14}
    vision |= {"image_size": 384, "num_attention_heads": 16, "vision_use_head": False}
    tower = {"model_type": "siglip_vision_model", **vision}
    config = {"model_type": "llava_onevision", "vision_config": tower, "text_config": {"model_type": "qwen2"}}
    config["vision_feature_select_strategy"] = "full"
    (tmp_path / "config.json").write_text(json.dumps(config))
    shown = re.search(r"<!-- plan: r 25 -->\n```\n(.*?)```", TEXT, re.S)
    (call,) = [call for call in CALLS if call.words[:2] == ("tosa-vqa", "plan")]
    words = list(call.words[1:])
    words[words.index("--model") + 1] = str(tmp_path)
    printed = CliRunner().invoke(service_app, words)
    assert shown and printed.exit_code == 0 and printed.output == shown[1]


def test_the_configuration_for_vlmevalkit_is_one_that_the_endpoint_takes() -> None:
    shown = re.search(r"<!-- vlmevalkit: config.json -->\n```json\n(.*?)```", TEXT, re.S)
    assert shown
    config = json.loads(shown[1])
    ours = {"model", "temperature", "max_tokens", "merge", "depth"}
    asked = [
        parse_chat(body(chat(**{name: model[name] for name in ours & model.keys()})), Settings()).vqa_request
        for model in config["model"].values()
    ]
    assert [one.fields.method for one in asked] == [None, "tosa"]
    assert {model["key"][:3] for model in config["model"].values()} == {"sk-"}


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
        for line in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert (PAGE.parent / path).exists() if path else anchor in headings, target
