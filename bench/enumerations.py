"""RoomQA answered freely and from an enumeration: how often answers are right, and how often outside of it.

The enumeration of a question is all answers that validation questions of its type have. Answers from it are
decoded under the JSON schema {"answer": {"enum": [...]}}, as `response_format` does.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
from PIL import Image

from evals.machine import write_result
from evals.rooms.score import accuracy_by_type, is_right
from evals.rooms.splits import TEST, VALIDATION, Example, examples
from service.roomqa.questions import Question
from tosa import MergeSpec, make_plan
from vlm import GenerationParams, Vlm, encode, features, generate, load_vlm, pixel_values, prompt_ids
from vlm.grammar import Grammar, compile_schema

RESULT = Path(__file__).parent / "results" / "enumerations.json"


def enumerations(number: int) -> dict[str, list[str]]:
    """Return all answers of every type of question, from other scenes than those of the test."""
    answers: dict[str, set[str]] = defaultdict(set)
    for example in examples(VALIDATION, number):
        for question in example.questions:
            answers[question.type].add(question.answer)
    return {kind: sorted(values) for kind, values in sorted(answers.items())}


def grammar_of(vlm: Vlm, answers: list[str]) -> Grammar:
    """Compile an object whose one field is one of these answers."""
    properties = {"answer": {"enum": answers}}
    return compile_schema(vlm, {"type": "object", "properties": properties, "required": ["answer"]})


@torch.inference_mode()
def answer_both(vlm: Vlm, example: Example, grammars: dict[str, Grammar]) -> list[tuple[Question, str, str]]:
    """Return the questions of a frame with their free answers and those from the enumeration."""
    plan = make_plan(MergeSpec("none"), vlm.shape)
    image = Image.fromarray(example.frame.rgb)
    seen = features(vlm, encode(vlm.tower, pixel_values(vlm, [image]), plan, None))
    results = []
    for question in example.questions:
        prompt = prompt_ids(vlm, question.question, [plan.tokens_out])
        free = generate(vlm, prompt, seen, GenerationParams()).text
        chosen = generate(vlm, prompt, seen, GenerationParams(grammar=grammars[question.type])).text
        results.append((question, free, json.loads(chosen)["answer"]))
    return results


def main() -> None:
    """Ask, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    vlm, known = load_vlm("room-tiny"), enumerations(2000)
    grammars = {kind: grammar_of(vlm, answers) for kind, answers in known.items()}
    split = examples(TEST, asked.questions)
    results = [one for example in split for one in answer_both(vlm, example, grammars)]
    questions = [question for question, _, _ in results]
    free, chosen = [one for _, one, _ in results], [one for *_, one in results]
    outside = sum(one not in known[question.type] for question, one in zip(questions, free, strict=True))
    assert all(one in known[question.type] for question, one in zip(questions, chosen, strict=True))
    report = {
        "model": {"id": vlm.id, "revision": vlm.revision},
        "questions": len(results),
        "enumerations": known,
        "free": {"outside": outside, "accuracy": accuracy_by_type(questions, free)},
        "enumerated": {"outside": 0, "accuracy": accuracy_by_type(questions, chosen)},
        "changed": sum(was != one for _, was, one in results),
        "changed_to_right": sum(was != one and is_right(one, q.answer) for q, was, one in results),
    }
    write_result(asked.out, report)
    print(json.dumps({name: report[name] for name in ("questions", "changed", "changed_to_right")}))
    print(json.dumps({name: report[name] for name in ("free", "enumerated")}, indent=1))


if __name__ == "__main__":
    main()
