"""Whether vLLM writes what the language model in this process writes; bench/results/language_equality.json.

python -m bench.language.equality --questions 1000

Every question of RoomQA's test split is asked with the next method and ratio: by this process, by the service
in front of vLLM alone, and again with 16 at once. Float32 throughout.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, cycle, islice, product
from pathlib import Path
from typing import Any

from bench.language.arms import Arm
from bench.language.servers import QUEUE
from bench.load.corpus import view
from bench.load.generator import Target, closed_loop
from bench.load.requests import Sample
from bench.load.serving import Serving, ours, serving
from bench.vllm_server import vllm_serving
from evals.machine import write_result
from service.engine.batch_runner import answer_here
from service.pipeline.models import Models, load_models
from service.pipeline.prepare import Written, prepare
from service.request.schemas import Output, VqaFields, VqaRequest
from service.settings import Settings
from service.timing import StageTimer
from tosa import METHODS
from vlm.language_checkpoint import write_language_model

RESULT = Path(__file__).parents[1] / "results" / "language_equality.json"
RATIOS = (0.5, 0.25, 0.125)
AT_ONCE = (1, 16)
MARGIN = 1e-4
"""Two logits that are nearer than this may change places by rounding."""
SPECS: Sequence[dict[str, Any]] = (
    {"method": "none"},
    *({"method": name, "keep_ratio": ratio} for name, ratio in product(METHODS, RATIOS) if name != "none"),
)


@dataclass(frozen=True)
class Asked:
    """One question about one frame, with one setting."""

    frame: int
    question: int
    spec: dict[str, Any]

    @property
    def arm(self) -> Arm:
        """Return the way to ask the service."""
        return Arm("vllm", {"views": "single"} | self.spec)

    def request(self) -> VqaRequest:
        """Return the question for this process, with the two likeliest tokens of each step."""
        shown = view(self.frame)
        text = shown.questions[self.question]
        fields = VqaFields(question=text, views="single", max_new_tokens=8, **self.spec)
        depths = (shown.depth,) if self.spec["method"] == "tosa" else ()
        return VqaRequest(fields, (shown.image,), depths, output=Output(top_logprobs=2))


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--questions", type=int, default=1000)
    args.add_argument("--out", type=Path, default=RESULT)
    given = args.parse_args()
    asked = drawn(given.questions)
    settings = Settings(model="room-tiny", dtype="float32")
    models = load_models(settings)
    here = [answered_here(models, settings, one) for one in asked]
    print(f"{len(here)} answered here", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        language = write_language_model("room-tiny", Path(folder) / "language").folder
        with vllm_serving(language, "--enable-prompt-embeds", "--max-model-len", "2048") as server:
            env = QUEUE | {"TOSA_VQA_LANGUAGE": "vllm", "TOSA_VQA_LANGUAGE_URLS": server.url}
            env |= {"TOSA_VQA_DTYPE": "float32", "TOSA_VQA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            command = ours("--model", "room-tiny", "--depth-model", "none")
            with serving(command, env=env) as service:
                found = {str(number): compared(service, asked, here, number) for number in AT_ONCE}
    for number, one in found.items():
        print(number, one["equal"], one["near"], one["different"], flush=True)
    specs = [f"{spec['method']} {spec.get('keep_ratio', 1):g}" for spec in SPECS]
    write_result(given.out, {"questions": len(asked), "settings": specs, "margin": MARGIN, "at_once": found})


def drawn(number: int) -> list[Asked]:
    """Return so many questions, frame by frame, the settings in turn."""
    pairs = ((frame, question) for frame in count() for question in range(len(view(frame).questions)))
    return [Asked(*pair, spec) for pair, spec in zip(islice(pairs, number), cycle(SPECS), strict=False)]


def answered_here(models: Models, settings: Settings, asked: Asked) -> Written:
    """Answer one question in this process, alone."""
    prepared = prepare(models, asked.request(), settings, StageTimer())
    (written,) = answer_here(models, prepared).answers
    return written


def compared(
    service: Serving, asked: Sequence[Asked], here: Sequence[Written], at_once: int
) -> dict[str, Any]:
    """Ask the service everything; count equal answers, those that a near tie explains, and the others."""
    samples = asyncio.run(_ask(service, asked, at_once))
    equal, near, different = 0, list[dict[str, Any]](), list[dict[str, Any]]()
    for one, mine, sample in zip(asked, here, samples, strict=True):
        body = sample.answer()
        if not sample.is_answer:
            raise ValueError(f"question {one} was not answered: {sample.status} {body}")
        if (body["answer"], body["usage"]["completion_tokens"]) == (mine.text, mine.completion_tokens):
            equal += 1
            continue
        told = {"question": view(one.frame).questions[one.question], **one.spec, "margin": margin(mine)}
        told |= {"here": mine.text, "there": body["answer"]}
        (near if told["margin"] < MARGIN else different).append(told)
    return {"equal": equal, "near": len(near), "different": len(different), "which": [*near, *different]}


def margin(written: Written) -> float:
    """Return the smallest distance of the two largest logits among all tokens of an answer."""
    pairs = [[value for _, value in token.top] for token in written.logprobs or ()]
    return min((first - second for first, second in pairs), default=0.0)


async def _ask(service: Serving, asked: Sequence[Asked], at_once: int) -> list[Sample]:
    """Ask everything, `at_once` at a time; return the samples in the order of the questions."""
    requests = [
        replace(one.arm.request(one.frame, one.question), label=str(at)) for at, one in enumerate(asked)
    ]
    with closing(Target.of(service.url, timeout_s=300)) as target:
        samples = await closed_loop(target, requests, at_once)
    return sorted(samples, key=lambda sample: int(sample.label))


if __name__ == "__main__":
    main()
