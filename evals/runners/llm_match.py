"""LLM-Match of OpenEQA: the message to a judge, the parsing of its mark, and the score.

Source: Majumdar et al., OpenEQA, CVPR 2024, and evaluate-predictions.py and openeqa/evaluation/llm_match.py
of facebookresearch/open-eqa (MIT). Its prompt files are read from the user's own copy; none of them is here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import numpy as np

from evals.runners.items import DatasetError

LOWEST, HIGHEST = 1, 5
TAG = "Your mark:"
PROMPT_FILES = ("mmbench.txt", "mmbench-extra.txt")  # official names: one right answer, several

_SCALE = """Compare an answer that was given to a question with the answer that is known to be right.
Reply with one whole number from 1 to 5 and nothing else:
5 if it says the same in other words, 3 if it is partly right, 1 if it has nothing to do with it or
contradicts it; 2 and 4 lie in between. Judge the meaning, not length or style.
"""
_OWN = f"""{_SCALE}
Question: {{question}}
Right answer: {{answer}}
Given answer: {{prediction}}
{TAG}"""
_OWN_EXTRA = f"""{_SCALE}Other right answers are listed; being like any one of them is enough.

Question: {{question}}
Right answer: {{answer}}
Other right answers: {{extra_answers}}
Given answer: {{prediction}}
{TAG}"""


@dataclass(frozen=True)
class Prompts:
    """The two messages to a judge: {question}, {answer}, {prediction}; one also has {extra_answers}."""

    name: str
    one_answer: str
    extra_answers: str

    @property
    def sha256(self) -> str:
        """Return a hash of the wording."""
        return hashlib.sha256(f"{self.one_answer}\0{self.extra_answers}".encode()).hexdigest()

    def message(self, question: str, answer: str, extra: Sequence[str | None] | None, given: str) -> str:
        """Write the message to the judge; extra: more right answers, None if the record has no such field."""
        template = self.one_answer if extra is None else self.extra_answers
        others = None if extra is None else list(extra)  # as the official script shows them: a Python list
        return template.format(question=question, answer=answer, prediction=given, extra_answers=others)


OWN_PROMPTS = Prompts("own wording, not the official prompt", _OWN, _OWN_EXTRA)


def read_prompts(folder: Path) -> Prompts:
    """Read mmbench.txt and mmbench-extra.txt, as in `prompts/` of the official repository.

    Raises DatasetError for a missing file, and for one whose fields are not those of the protocol.
    """
    needed = {"question", "answer", "prediction"}
    one, extra = (folder / name for name in PROMPT_FILES)
    return Prompts("user's files", _template(one, needed), _template(extra, needed | {"extra_answers"}))


def until_last_period(answer: str) -> str:
    """Remove what follows the last period, as the official script does before it asks the judge."""
    return answer[: answer.rfind(".") + 1] or answer


def parse_mark(reply: str) -> int | None:
    """Read the judge's whole number: alone, or behind the first "Your mark:" on its line; None otherwise."""
    line = reply.partition(TAG)[2].partition("\n")[0] if TAG in reply else reply
    found = re.fullmatch(r"\s*(-?[0-9]{1,9})\s*", line)
    return int(found[1]) if found else None


def percent(mark: int) -> float:
    """Turn a mark into a score: 1 is 0 %, 5 is 100 %; those beyond are clipped, as in the official script."""
    return 100 * (float(np.clip(mark, LOWEST, HIGHEST)) - LOWEST) / (HIGHEST - LOWEST)


def _template(path: Path, needed: set[str]) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
        parts = Formatter().parse(text)
        fields = {f"{name}:{form}" if form else name for _, name, form, _ in parts if name is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a judge's prompt ({error})") from None
    except ValueError as error:
        raise DatasetError(
            f"{path}: {error}; write {{{{ and }}}} for braces that stand for themselves"
        ) from None
    if fields != needed:
        listed = ", ".join(f"{{{name}}}" for name in sorted(needed))
        found = ", ".join(f"{{{name}}}" for name in sorted(fields)) or "none"
        raise DatasetError(f"{path}: a judge's prompt has the fields {listed}; found {found}")
    return text
