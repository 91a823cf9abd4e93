"""At the border: wrapped models, sizes as lists, unknown parts, empty batches, float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.autograd import gradcheck
from transformers import SiglipConfig, SiglipModel

from tests.vlm.adapters import FAMILIES, HUGGING_FACE, TIMM, made, pixels_for, tiny
from tosa import EncoderShape, MergeSpec, make_plan
from vlm import VlmError, adapt, tosa_encode


class Wrapped(nn.Module):
    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        self.add_module(name, model)


@pytest.mark.parametrize("where", ["module", "vision_model", "backbone"])
def test_a_wrapped_model_is_refused_with_a_hint(where: str) -> None:
    with pytest.raises(VlmError, match=rf"holds a VisionTransformer: give its \.{where} instead") as error:
        adapt(Wrapped(where, tiny("deit")))
    assert error.value.code == "unsupported_tower"


def test_wrappers_that_people_use_have_a_hint_that_works() -> None:
    both = SiglipModel(SiglipConfig(vision_config=HUGGING_FACE | {"image_size": 48}))
    for model in (nn.DataParallel(tiny("deit")), torch.compile(tiny("deit")), both):
        with pytest.raises(VlmError, match="give its") as error:
            adapt(model)
        path = str(error.value).split("give its .")[1].removesuffix(" instead")
        inner: Any = model
        assert adapt(inner.get_submodule(path)).shape.grid == (6, 6)


def test_a_model_that_holds_none_gets_no_hint() -> None:
    with pytest.raises(VlmError) as error:
        adapt(nn.Sequential(nn.Linear(2, 2)))
    assert "give its" not in str(error.value)


def test_vitamin_is_refused_by_its_mlp() -> None:
    with pytest.raises(VlmError, match="VisionTransformer cannot be adapted: its MLP is GeGluMlp") as error:
        adapt(timm.create_model("vitamin_small_224", pretrained=False))
    assert error.value.code == "unsupported_tower"


@pytest.mark.parametrize("name", ["deit", "dinov3", "siglip", "siglip2", "clip", "sam, whole windows"])
def test_a_size_may_be_a_list(name: str) -> None:
    """It was refused with `got images of 48 x 48 px but takes 48 x 48 px`."""
    listed: Any = [48, 48]
    assert adapt(tiny(name), image_size=listed).shape == adapt(tiny(name), image_size=(48, 48)).shape


@pytest.mark.parametrize("size", [48, (48,), (3, 48, 48), (0, 48), "48"])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(VlmError, match=r"image_size must be \(height, width\) in px, got") as error:
        adapt(tiny("deit"), image_size=size)
    assert error.value.code == "wrong_image_size"


def test_a_grid_may_be_a_list() -> None:
    listed: Any = [6, 6]
    shape = EncoderShape(3, listed)
    assert shape == EncoderShape(3, (6, 6))
    assert make_plan(MergeSpec("tome", keep_ratio=0.5), shape).tokens_out == 18


# These reshape embeddings or positions so that no empty batch survives, in the library's own forward too.
OWN_LIMITS = ["dinov3 by name", "idefics3", "smolvlm"]


@pytest.mark.parametrize("name", OWN_LIMITS)
def test_an_empty_batch_fails_where_it_does_in_the_library(name: str) -> None:
    pixels = pixels_for(name)[:0]
    for run in (FAMILIES[name].forward, lambda model, pixels: tosa_encode(model, pixels, MergeSpec())):
        with pytest.raises(RuntimeError, match="cannot reshape tensor of 0 elements"):
            run(tiny(name), pixels)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in OWN_LIMITS])
@torch.inference_mode()
def test_an_empty_batch_has_no_features(name: str) -> None:
    methods = ["cubist", "pool"] if name.startswith("sam") else ["tome", "cubist"]
    for spec in [MergeSpec(), *(MergeSpec(method, keep_ratio=0.5) for method in methods)]:
        one, none = (tosa_encode(tiny(name), pixels_for(name)[:batch], spec) for batch in (1, 0))
        assert none.x.shape == (0, *one.x.shape[1:])
        assert none.source.shape == (0, *one.source.shape[1:])


@pytest.mark.parametrize(("name", "method"), [("deit", "tome"), ("dinov3", "cubist"), ("siglip", "tofu")])
def test_a_model_of_float64_is_exact(name: str, method: str) -> None:
    model, pixels = copy.deepcopy(tiny(name)).double(), pixels_for(name, 1).double()
    spec = MergeSpec(method, keep_ratio=0.5)
    assert tosa_encode(model, pixels, spec).x.dtype is torch.float64
    plain = FAMILIES[name].forward(model, pixels)
    torch.testing.assert_close(tosa_encode(model, pixels, MergeSpec()).x, plain, rtol=0, atol=1e-12)

    def features(pixels: torch.Tensor) -> torch.Tensor:
        return tosa_encode(model, pixels, spec).x

    assert gradcheck(features, (pixels.requires_grad_(),), fast_mode=True)


def test_hybrid_models_are_adapted_or_refused_but_never_crash() -> None:
    for name in ("vit_tiny_r_s16_p8_224", "vitamin_small_224", "vit_small_resnet26d_224"):
        try:
            model: Any = timm.create_model(name, pretrained=False).eval()
            adapter = adapt(model)
        except VlmError as error:
            assert error.code == "unsupported_tower"
            continue
        pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            ours = tosa_encode(adapter, pixels, MergeSpec()).x
            torch.testing.assert_close(ours, model.forward_features(pixels), rtol=0, atol=1e-4)


def test_models_without_a_size_are_refused_by_name() -> None:
    model: Any = made(timm.models.VisionTransformer, TIMM | {"dynamic_img_size": True})()
    model.patch_embed.img_size = model.patch_embed.grid_size = None
    with pytest.raises(VlmError, match="built without an image size"):
        adapt(model)
