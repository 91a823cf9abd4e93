"""A patched model merges behind its own call, and is as it was afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.vlm.adapters import TIMM, made, snapshot
from tests.vlm.test_classify import MODELS, classifier, images, logits_of
from tosa import MergeSpec, PlanError
from vlm import VlmError, classify, patch

HALF = MergeSpec("cubist", keep_ratio=0.5)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_the_model_merges_until_it_is_undone(name: str) -> None:
    model, pixels = classifier(name), images()
    plain, before = logits_of(model(pixels)), snapshot(model)
    with patch(model, HALF):
        output = model(pixels)
        assert torch.equal(logits_of(output), classify_unpatched(name, HALF))
    assert type(output) is type(model(pixels))
    assert snapshot(model) == before
    assert torch.equal(logits_of(model(pixels)), plain)
    assert not torch.allclose(logits_of(output), plain, atol=1e-5)


def classify_unpatched(name: str, spec: MergeSpec) -> torch.Tensor:
    return classify(classifier(name), images(), spec)


@torch.inference_mode()
def test_without_a_block_undo_does_it() -> None:
    model, pixels = classifier("average"), images()
    plain = model(pixels)
    patched = patch(model, HALF)
    assert not torch.allclose(model(pixels), plain, atol=1e-5)
    patched.undo()
    patched.undo()
    assert torch.equal(model(pixels), plain)


@torch.inference_mode()
def test_an_exception_takes_the_patch_off() -> None:
    model = classifier("average")
    with pytest.raises(KeyError), patch(model, HALF):
        raise KeyError
    assert "forward" not in vars(model)


@torch.inference_mode()
def test_no_class_is_touched_and_no_other_model() -> None:
    model, other, pixels = classifier("average"), classifier("average"), images()
    plain = other(pixels)
    own = type(model).forward
    with patch(model, HALF):
        assert type(model).forward is own
        assert torch.equal(other(pixels), plain)


@torch.inference_mode()
def test_hooks_of_the_model_itself_run() -> None:
    model, pixels, seen = classifier("average"), images(), list[torch.Size]()
    model.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with patch(model, HALF):
        model(pixels)
    assert seen == [(2, 7)]


def test_a_second_patch_is_refused_and_so_is_undoing_under_another() -> None:
    model = classifier("average")
    first = patch(model, HALF)
    with pytest.raises(VlmError) as error:
        patch(model, HALF)
    assert error.value.code == "already_patched"
    model.forward, ours = (lambda x: x), model.forward
    with pytest.raises(VlmError) as error:
        first.undo()
    assert error.value.code == "already_patched"
    model.forward = ours
    first.undo()
    patch(model, HALF).undo()


def test_another_thread_is_refused_and_not_merged_behind_its_back() -> None:
    model, pixels = classifier("average"), images()
    with patch(model, HALF), ThreadPoolExecutor(1) as pool:
        with pytest.raises(VlmError) as error:
            pool.submit(model, pixels).result()
        assert error.value.code == "patched_elsewhere"
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model, pixels).result()


@pytest.mark.parametrize("name", ["hf vit", "hf siglip"])
def test_arguments_that_would_be_ignored_are_refused(name: str) -> None:
    model, pixels = classifier(name), images()
    with patch(model, HALF):
        model(pixel_values=pixels, labels=None, return_dict=True, output_attentions=False)
        for told in ({"labels": torch.zeros(2)}, {"return_dict": False}, {"output_hidden_states": True}):
            with pytest.raises(VlmError, match=next(iter(told))) as error:
                model(pixels, **told)
            assert error.value.code == "unsupported_argument"
        with pytest.raises(VlmError, match="dict"):
            model({"patches": pixels})


def test_what_could_never_run_is_refused_at_once() -> None:
    model = classifier("average")
    with pytest.raises(PlanError):
        patch(model, MergeSpec("tome", keep_ratio=0.001))
    with pytest.raises(VlmError) as error:
        patch(model, MergeSpec("tosa", keep_ratio=0.5))
    assert error.value.code == "missing_spatial"
    with pytest.raises(VlmError) as error:
        patch(made(VisionTransformer, TIMM | {"global_pool": ""})(), HALF)
    assert error.value.code == "no_head"
    assert "forward" not in vars(model)


@torch.inference_mode()
def test_images_of_any_size_get_a_plan_of_their_own() -> None:
    model: Any = made(VisionTransformer, TIMM | {"dynamic_img_size": True, "num_classes": 7})().eval()
    with patch(model, HALF):
        for side in (48, 64):
            merged = model(images(side=side))
            assert torch.equal(merged, classify_of(model, side))


def classify_of(model: Any, side: int) -> torch.Tensor:
    """Classify with the weights of a patched model, on one of its class that is not."""
    twin: Any = made(VisionTransformer, TIMM | {"dynamic_img_size": True, "num_classes": 7})().eval()
    twin.load_state_dict(model.state_dict())
    return classify(twin, images(side=side), HALF)


def test_it_trains() -> None:
    model, pixels = classifier("hf dinov2").train(), images()
    with patch(model, HALF):
        model(pixels).logits.sum().backward()
    assert sum(weight.grad is not None for weight in model.parameters()) > 30
