"""Check commands without running them: programs, options, files, verbs and settings are all there.

A shell reads the commands; each program is a function that says how it was called, so that nothing runs.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from bench.containers.compose_file import read
from evals.runners import __main__ as runners
from examples.lmms_eval import same_answers, write_roomqa
from service.cli.main import app as service_app
from service.settings import Settings
from tests.docs.pages import ROOT
from tests.kubernetes.rendering import FOLDER, rendered

PROGRAMS = (
    *("python", "tosa-vqa", "make", "pip", "uv", "sh", "docker", "locust", "jq", "ray", "serve"),
    *("lmms-eval", "kubectl"),
)
# What vLLM 0.32 was tried with.
VLLM = ("model", "dtype", "port", "generation-config", "structured-outputs-config.backend")
VLLM_PICTURES = ("limit-mm-per-prompt", "max-logprobs")
VLLM_COUNTS = ("enable-per-request-metrics", "enable-prompt-tokens-details")
VLLM_SWITCHES = {
    VLLM: ("enable-prompt-embeds", *VLLM_COUNTS),
    (*VLLM, *VLLM_PICTURES): ("enable-scale-out", "enable-mm-embeds", "skip-mm-profiling", *VLLM_COUNTS),
}
CALL = r"""set -euf; PATH=
source() { :; }
say() {
  printf '%s\037' "$@"
  for name in ${!TOSA_VQA_@}; do printf '%s=%s\037' "$name" "${!name}"; done
  printf '\036'
}
"""
# What these programs were tried with: lmms-eval 0.7.3, nvidia-vlmeval 26.3.
LMMS_EVAL = ("model", "model_args", "include_path", "tasks", "batch_size", "output_path")
VLMEVALKIT = ("config", "mode", "api-nproc", "work-dir")
LOCUST = ("host", "headless", "u", "r", "t", "f")
COMPOSE = {"up": {"--build", "--wait", "--detach", "--scale"}, "run": {"--rm", "--build"}}
KUSTOMIZED = FOLDER / "example"
KUBECTL = {"--namespace", "--from-file", "-k"}
DOCKER = {
    "build": {"--tag", "--build-arg", "--build-context"},
    "push": set[str](),
    "run": {"--rm", "--read-only", "--tmpfs", "--cap-drop", "--publish"},
}


@dataclass(frozen=True)
class Call:
    """A program as it was called, and the settings in its environment."""

    words: tuple[str, ...]
    settings: dict[str, str]


def called(script: str) -> list[Call]:
    """Let a shell read a script, and return the calls it would make."""
    programs = "".join(f'{name}() {{ say {name} "$@"; }}\n' for name in PROGRAMS)
    told = subprocess.run(
        ["bash", "-c", CALL + programs + script.replace(".venv/bin/", "")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
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


def check(call: Call) -> None:
    """Raise whatever is wrong with a call."""
    Settings.model_validate(
        {name.removeprefix("TOSA_VQA_").lower(): value for name, value in call.settings.items()}
    )
    match call.words:
        case ("python", "-m", "evals.runners", *words):
            runners.spec_of(parsed(runners.command_line(runners.BENCHMARKS), words))
        case ("python", "-m", "examples.lmms_eval.write_roomqa", *words):
            parsed(write_roomqa.main, words)
        case ("python", "-m", "examples.lmms_eval.same_answers", *words):
            parsed(same_answers.main, words)
        case ("python", "-m", "vlmeval.run", *words):
            flags(VLMEVALKIT, words)
        case ("python", "-m", "vllm.entrypoints.openai.api_server", *words):
            needed = (*VLLM, *VLLM_PICTURES) if "--limit-mm-per-prompt" in words else VLLM
            flags(needed, words, *VLLM_SWITCHES[needed])
        case ("python", "-m", "pytest", "-m", marker, *paths):
            assert f'"{marker}: ' in (ROOT / "pyproject.toml").read_text()
            assert all((ROOT / path).exists() for path in paths)
        case ("python", "-m", module, *words):
            own_flags(module, words)
        case ("python", script, *_):
            assert (ROOT / script).is_file() or script == "video_frames.py", script
        case ("tosa-vqa", *words):
            parsed(service_app, words)
        case ("lmms-eval", *words):
            lmms_eval(flags(LMMS_EVAL, words, "log_samples"))
        case ("make", *words):
            verbs = {word for word in words if "=" not in word}
            assert verbs <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)), verbs
        case ("pip", "install", *packages):
            installed(packages)
        case ("uv", "pip", "compile", "--torch-backend", "cpu", "--generate-hashes", file):
            assert (ROOT / file).is_file(), file
        case ("sh", script, *_):
            assert (ROOT / script).is_file(), script
        case ("docker", "compose", *words):
            compose(words)
        case ("docker", verb, *words):
            assert {word for word in words if word.startswith("-")} <= DOCKER[verb], words
        case ("kubectl", *words):
            kubectl(words)
        case ("locust", "-f", file, *words):
            assert (ROOT / file).is_file(), file
            assert {word.strip("-") for word in words if word.startswith("-")} <= set(LOCUST)
        case ("serve", "run", file):
            assert (ROOT / file).is_file(), file
        case ("ray", "start", *_) | ("jq", *_):
            pass  # no part of this project
        case _:
            raise AssertionError(f"there is no check for {' '.join(call.words)}")


def parsed(command: click.Command, words: Sequence[str]) -> dict[str, Any]:
    """Parse the options of a command, run nothing, and return what was given."""
    if isinstance(command, click.Group):
        named = command.get_command(click.Context(command), words[0])
        assert named is not None, f"there is no command {words[0]}"
        command, words = named, words[1:]
    given = command.make_context("checked", list(words)).params
    return {name: value for name, value in given.items() if value not in (None, [], ())}


def flags(known: Sequence[str], words: Sequence[str], *switches: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    for name in known:
        parser.add_argument(f"--{name}", required=True)
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(list(words))


class _Parsed(Exception):
    pass


def own_flags(module: str, words: Sequence[str]) -> None:
    """Let a module of ours parse its options, and stop it there."""
    assert (ROOT / module.split(".")[0]).is_dir(), module
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):
        found = importlib.import_module(f"{module}.__main__")
    if "parse_args" not in inspect.getsource(found):
        assert not words, f"{module} takes no options"
        return
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        parse(parser, list(words))
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        found.main()


def lmms_eval(told: argparse.Namespace) -> None:
    assert told.model in ("openai", "tosa_vqa") and (ROOT / told.include_path).is_dir()
    assert "base_url=http://127.0.0.1:8000/v1," in told.model_args
    fields = same_answers.spec_of(told.model_args)
    assert (fields["method"] != "none") == (told.model == "tosa_vqa") == ("merge=" in told.model_args)


def installed(packages: Sequence[str]) -> None:
    """Folders of packages are there, and extras of ours are declared."""
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
    for package in packages:
        extra = re.fullmatch(r"tosa-vqa\[(\w+)\]", package)
        assert extra is None or extra[1] in extras, package
        assert "/" not in package or (ROOT / package).exists(), package


def compose(words: Sequence[str]) -> None:
    """Files and services are there, and the verb takes these options."""
    words, services = list(words), dict[str, Any]()
    while words[0] in ("-f", "--profile"):
        option, value = words.pop(0), words.pop(0)
        if option == "-f":
            services |= read((ROOT / value).read_text())["services"]
    verb, *rest = words
    assert {word for word in rest if word.startswith("-")} <= COMPOSE[verb], rest
    named = {word.partition("=")[0] for word in rest if not word.startswith("-")}
    assert named <= set(services), named


def kubectl(words: Sequence[str]) -> None:
    """Folders render, and what is asked about is in one of them."""
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= KUBECTL, words
    folders = [word for word in words if (ROOT / word).is_dir()]
    if "-k" in words or "kustomize" in words:
        assert len(folders) == 1 and rendered(ROOT / folders[0]), words
    there = {f"{each['kind'].lower()}/{each['metadata']['name']}" for each in rendered(KUSTOMIZED)}
    assert {word for word in words if re.match(r"(deployment|service)/", word)} <= there, words


def exists(path: str) -> bool:
    """Say whether a path of the pages is in the repository; it may be a pattern."""
    return (
        any(ROOT.glob(path.rstrip("/")))
        if "*" in path
        else (ROOT / path).exists() or Path(path).is_absolute()
    )
