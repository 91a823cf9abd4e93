"""Errors cross the border of a process: every class of ours comes back from pickle as it was."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from typing import Any

import pytest

import depth
import service
import tosa
import vlm
from depth import DepthError
from depth.errors import REASONS
from depth.estimate import EstimatorError
from service.errors import ServiceError
from service.language.faults import Fault, Stale
from tests.tosa.refusing_worker import tokens_kept
from tosa import METHODS, PlanError, UnknownMethod
from tosa.frames.select import BudgetTooSmall
from tosa.methods.options import BadOption
from vlm import VlmError

PACKAGES = (tosa, depth, vlm, service)
# Of the classes that one sentence alone does not make.
SAMPLES: dict[type[BaseException], list[BaseException]] = {
    PlanError: [PlanError("bad_r", "r", "r must be at most 3.", limit=3, choices=["a", "b"])],
    UnknownMethod: [UnknownMethod("tomee", METHODS)],
    BadOption: [BadOption("seed must be an integer", limit=2.5, choices=("a",))],
    DepthError: [DepthError(reason, limit=7) for reason in REASONS],
    EstimatorError: [EstimatorError("estimate_failed", "No depth came out.")],
    BudgetTooSmall: [BudgetTooSmall(10, 9)],
    VlmError: [VlmError("prompt_too_long", "Too long.", rows=(1, 2), field="question", limit=9)],
    ServiceError: [
        ServiceError("bad_request", reason="value", field="seed", limit=2, choices=["x"], retry_after_s=3),
        ServiceError("bad_image", sentence="Not that one."),
    ],
    Fault: [Fault("language_down", "no route", 3), Fault("language_cut")],
    Stale: [Stale("language_down")],
}


def modules() -> Iterator[str]:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                yield module.name


def error_classes() -> list[type[BaseException]]:
    """Find every class of an exception that a module of ours defines."""
    names = {package.__name__ for package in PACKAGES}
    for name in modules():
        if "ray_serve" not in name or find_spec("ray") is not None:
            importlib.import_module(name)
    found, todo = list[type[BaseException]](), [BaseException]
    while todo:
        kinds = todo.pop().__subclasses__()
        found += [kind for kind in kinds if kind.__module__.partition(".")[0] in names]
        todo += kinds
    return sorted(set(found), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def samples(kind: type[BaseException]) -> list[BaseException]:
    return SAMPLES.get(kind) or [kind("Something is wrong.")]


def test_the_classes_are_found() -> None:
    assert set(SAMPLES) < set(error_classes())


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_an_error_comes_back_as_it_was(kind: type[BaseException]) -> None:
    for error in samples(kind):
        error.add_note("said on the way")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert_same(pickle.loads(pickle.dumps(error, protocol)), error)
        assert_same(copy.copy(error), error)
        assert_same(copy.deepcopy(error), error)


def assert_same(ours: BaseException, error: BaseException) -> None:
    assert type(ours) is type(error)
    assert str(ours) == str(error)
    assert ours.args == error.args
    assert vars(ours) == vars(error)


def test_a_class_that_needs_more_than_its_sentence_would_be_found() -> None:
    class Coded(Exception):
        def __init__(self, code: str, sentence: str) -> None:
            super().__init__(sentence)
            self.code = code

    reduced: Any = Coded("bad", "Bad.").__reduce__()
    with pytest.raises(TypeError, match="sentence"):
        reduced[0](*reduced[1])


def test_a_refusal_in_a_pool_reaches_the_caller() -> None:
    """Neither broken nor waiting for ever: the others' answers come too."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        with pytest.raises(PlanError, match=r"keep_ratio 0\.01 leaves") as error:
            pool.map_async(tokens_kept, (0.5, 0.01)).get(timeout=120)
        assert error.value.code == "keep_ratio_too_small"
        assert error.value.limit == 0.2492
        assert pool.apply(tokens_kept, (0.5,)) == 288
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        answers = [executor.submit(tokens_kept, keep) for keep in (0.01, 0.25)]
        with pytest.raises(PlanError):
            answers[0].result(timeout=120)
        assert answers[1].result(timeout=120) == 144
