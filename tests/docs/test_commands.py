"""Every command of every page runs as it stands, from where a reader stands; what cannot run here parses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from service.settings import Settings
from tests.docs.commands import PROGRAMS, Call, called, check, exists
from tests.docs.pages import LANGUAGES, NAMES, ROOT, blocks, blocks_of, commands
from tests.docs.reader import Reader, copy_repository, served

RUN = {
    name: [block for block in commands(name) if block.reason_not_to_run is None and not block.serves]
    for name in NAMES
}
NOT_RUN = {
    name: [
        block for block in commands(name) if block.reason_not_to_run is not None and block.language == "sh"
    ]
    for name in NAMES
}
RUN_BY_TEST_LONG = (
    "docs/library.md",
    "docs/recipes.md",
    "docs/evaluate.md",
    "docs/tour.md",
    "docs/models.md",
)
"""Pages whose commands take long, and call what other tests call too."""
CHECKED = [
    pytest.param(call, id=f"{name}: {' '.join(call.words)[:60]}")
    for name, marked in NOT_RUN.items()
    if marked
    for call in called("\n".join(block.text for block in marked))
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("repository")
    copy_repository(folder)
    (start,) = [block for block in commands("README.md") if block.serves]
    with served(folder, start) as address:
        yield Reader(folder, address)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in RUN_BY_TEST_LONG else ())
        for name, run in RUN.items()
        if run
    ],
)
def test_the_commands_of_a_page_run(name: str, reader: Reader) -> None:
    done = reader.run(RUN[name])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_a_command_that_fails_is_noticed(reader: Reader) -> None:
    fails, later = "curl -s http://127.0.0.1:8000/vqa -F question=x", "print('not reached')"
    text = f"```sh\n{fails}\n```\n\n```python\n{later}\n```\n"
    done = reader.run(list(blocks_of("page.md", text)))
    assert done.returncode != 0 and "failed in page.md:1" in done.stderr and "not reached" not in done.stdout
    unknown = reader.run(list(blocks_of("page.md", "```sh\ntosa-vqa plan\n```\n")))
    assert unknown.returncode == 127, "the environment is not active before a page activates it"


@pytest.mark.parametrize("call", CHECKED)
def test_a_command_that_is_not_run_parses(call: Call) -> None:
    check(call)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name: str) -> None:
    for block in blocks(name):
        assert block.language in LANGUAGES, f"{name}:{block.line}"
        if block.reason_not_to_run is not None:
            assert len(block.reason_not_to_run) > 8, f"{name}:{block.line}: why is it not run?"
        if block.serves:
            assert block.text.startswith("make serve"), f"{name}:{block.line}"
        if block.language not in ("sh", "python"):
            lines = rf"^(?:\$ |\w+=\S+ )*(?:{'|'.join(PROGRAMS)}|export|curl) .*"
            assert not re.findall(lines, block.text, re.M), f"{name}:{block.line}"


@pytest.mark.parametrize("name", NAMES)
def test_files_verbs_and_settings_that_a_page_names_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    settings = set(re.findall(r"TOSA_VQA_(\w*[A-Z])(?![\w*<])", text))
    assert {one.lower() for one in settings} <= set(Settings.model_fields)
    verbs = set(re.findall(r"`make ([\w-]+)", text))
    assert verbs <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    tops = "service|vlm|tosa|depth|docker|tests|evals|training|bench|examples|docs"
    paths = set(re.findall(rf"`((?:{tops})/[\w./*-]*)(?::\w+)?`", text))
    assert [path for path in sorted(paths) if not exists(path)] == []


@pytest.mark.parametrize(
    "script",
    [
        "python -m evals.runners gqa --data d --out o --metod tosa",
        "python -m evals.runners gpa --data d --out o",
        "python -m evals.runners gqa --out o",
        'python -m evals.runners gqa --data d --out o --merge-json "{method: tosa}"',
        """python -m evals.runners gqa --data d --out o --merge-json '{"metod": "tosa"}'""",
        "python -m bench.load --ulr http://127.0.0.1:8000",
        "python -m bench.pareto --fast",
        "python -m bench.nothing",
        ".venv/bin/python docker/grafana/nothing.py",
        "TOSA_VQA_MAX_IMAGE=12 tosa-vqa serve",
        "TOSA_VQA_DTYPE=half tosa-vqa serve",
        "tosa-vqa server",
        "make tests",
        "pip install ./examples/nothing",
        "pip install 'tosa-vqa[rays]'",
        "docker compose -f docker/compse.yaml up",
        "docker compose -f docker/compose.yaml up --scale servce=3",
        "docker compose -f docker/compose.yaml run --rm lod",
        "kubectl apply -k docker/kubernetes/parts",
        "kubectl apply -f docker/kubernetes/example",
        "kubectl rollout status deployment/tosa-vqas",
        "locust -f bench/locustfile.py --headless",
        "python train.py",
    ],
)
def test_a_wrong_command_is_noticed(script: str) -> None:
    (call,) = called(script)
    with pytest.raises((Exception, SystemExit)):  # each parser has errors of its own
        check(call)


def test_a_program_that_is_not_known_is_noticed() -> None:
    with pytest.raises(AssertionError, match="rm"):
        called("rm -r /nowhere")
