"""From images to classes: the model's own head, with every token weighed by the patches it holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    CLIPConfig,
    CLIPForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tests.vlm.adapters import HUGGING_FACE, SAM, TIMM, made, tiny
from tosa import METHODS, MergeSpec, Tokens
from vlm import VlmError, adapt, classify, tosa_encode
from vlm.adapters import CLASSIFIERS
from vlm.adapters.heads import head_of, weighted_mean

CLASSES = 7
CLASSIFIED: dict[str, Any] = TIMM | {"num_classes": CLASSES}
TOWER: dict[str, Any] = HUGGING_FACE | {"image_size": 48, "num_labels": CLASSES}
NAFLEX = {key: value for key, value in CLASSIFIED.items() if key != "img_size"} | {
    "pos_embed_grid_size": (6, 6)
}


def tower(
    kind: Callable[..., nn.Module], config: Callable[..., Any], **kwargs: Any
) -> Callable[[], nn.Module]:
    return lambda: kind(config(**TOWER | kwargs))


def two_towers(kind: Callable[..., nn.Module], config: Callable[..., Any]) -> Callable[[], nn.Module]:
    text = HUGGING_FACE | {"vocab_size": 20, "projection_size": 32}
    vision = HUGGING_FACE | {"image_size": 48}
    return lambda: kind(config(text_config=text, vision_config=vision, num_labels=CLASSES))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "class token": made(VisionTransformer, CLASSIFIED),
    "average": made(VisionTransformer, CLASSIFIED | {"global_pool": "avg"}),
    "average and largest": made(VisionTransformer, CLASSIFIED | {"global_pool": "avgmax"}),
    "largest": made(VisionTransformer, CLASSIFIED | {"global_pool": "max"}),
    "attention pooling": made(VisionTransformer, CLASSIFIED | {"global_pool": "map", "class_token": False}),
    "with prefix": made(VisionTransformer, CLASSIFIED | {"global_pool": "avg", "pool_include_prefix": True}),
    "no classes": made(VisionTransformer, CLASSIFIED | {"global_pool": "avg", "num_classes": 0}),
    "distilled": made(VisionTransformerDistilled, CLASSIFIED),
    "eva": made(Eva, CLASSIFIED),
    "eva token": made(Eva, CLASSIFIED | {"global_pool": "token"}),
    "eva attention pooling": made(Eva, CLASSIFIED | {"global_pool": "map"}),
    "beit": made(Beit, CLASSIFIED | {"use_rel_pos_bias": True}),
    "beit token": made(Beit, CLASSIFIED | {"global_pool": "token"}),
    "naflex": made(NaFlexVit, NAFLEX),
    "naflex average": made(NaFlexVit, NAFLEX | {"global_pool": "avg", "class_token": True, "reg_tokens": 2}),
    "sam": made(VisionTransformerSAM, SAM | {"window_size": 3, "num_classes": CLASSES}),
    "hf vit": tower(ViTForImageClassification, ViTConfig),
    "hf deit": tower(DeiTForImageClassification, DeiTConfig),
    "hf deit teacher": tower(DeiTForImageClassificationWithTeacher, DeiTConfig),
    "hf dinov2": tower(Dinov2ForImageClassification, Dinov2Config),
    "hf dinov2 registers": tower(Dinov2WithRegistersForImageClassification, Dinov2WithRegistersConfig),
    "hf beit": tower(BeitForImageClassification, BeitConfig, use_relative_position_bias=True),
    "hf beit token": tower(BeitForImageClassification, BeitConfig, use_mean_pooling=False),
    "hf siglip": two_towers(SiglipForImageClassification, SiglipConfig),
    "hf clip": two_towers(CLIPForImageClassification, CLIPConfig),
}
# Average and attention pooling, which merging changes unless tokens are weighed.
POOLED = [
    *("average", "with prefix", "attention pooling", "eva", "eva attention pooling", "beit", "naflex"),
    *("naflex average", "hf dinov2", "hf dinov2 registers", "hf beit", "hf siglip", "hf clip"),
]


def classifier(name: str) -> Any:
    torch.manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        model = MODELS[name]().eval()
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def logits_of(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


def images(batch: int = 2, side: int = 48) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_without_merging_the_logits_are_those_of_the_model(name: str) -> None:
    model, pixels = classifier(name), images()
    logits = classify(model, pixels, MergeSpec())
    torch.testing.assert_close(logits, logits_of(model(pixels)), rtol=0, atol=1e-5)
    assert logits.shape == (2, 32 if name == "no classes" else CLASSES)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.merges])
@pytest.mark.parametrize("name", [name for name in MODELS if name != "sam"])
@torch.inference_mode()
def test_every_method_reaches_the_head(name: str, method: str) -> None:
    model, pixels = classifier(name), images()
    spatial = torch.rand(2, 36, 4, generator=torch.Generator().manual_seed(8))
    logits = classify(model, pixels, MergeSpec(method, keep_ratio=0.5), spatial)
    assert logits.isfinite().all()
    assert not torch.allclose(logits, logits_of(model(pixels)), atol=1e-5)


@torch.inference_mode()
def test_sam_classifies_the_full_grid() -> None:
    model = classifier("sam")
    assert classify(model, images(), MergeSpec("cubist", keep_ratio=0.5)).shape == (2, CLASSES)


@pytest.mark.long
def test_pooling_of_merged_tokens_drifts_unless_they_are_weighed() -> None:
    """One small textured object on a flat ground: merging joins the ground, and the object must not win."""
    torch.manual_seed(0)
    model: Any = timm.create_model(
        "vit_base_patch16_siglip_gap_224", pretrained=False, depth=6, num_classes=0
    )
    model = model.eval()
    pixels = torch.full((4, 3, 224, 224), 0.3)
    pixels[:, :, 64:128, 64:128] = torch.randn(4, 3, 64, 64)
    pixels += 0.02 * torch.randn_like(pixels)
    with torch.inference_mode():
        right = model(pixels)
        for keep_ratio, small, large in ((0.5, 0.001, 0.04), (0.25, 0.0011, 0.12), (0.1, 0.02, 0.11)):
            spec = MergeSpec("tome", keep_ratio=keep_ratio)
            weighed = classify(model, pixels, spec)
            unweighed = model.forward_head(tosa_encode(model, pixels, spec).x, pre_logits=True)
            assert (weighed - right).norm() / right.norm() < small
            assert (unweighed - right).norm() / right.norm() > large


@pytest.mark.parametrize("name", POOLED)
@torch.inference_mode()
def test_a_token_counts_as_many_times_as_it_holds_patches(name: str) -> None:
    """Three copies of a token and one of size 3 give the same logits."""
    model = classifier(name)
    head = head_of(model)
    adapter = adapt(model, image_size=(48, 48))
    prefix = adapter.shape.num_prefix
    x = torch.randn(2, prefix + 3, 32, generator=torch.Generator().manual_seed(3))
    copies = torch.cat([torch.arange(prefix + 3), torch.tensor([prefix + 1] * 2)])
    one = Tokens.start(x, (1, 3), prefix)
    three = Tokens.start(x[:, copies], (1, 5), prefix)
    size = torch.ones(2, prefix + 3)
    size[:, prefix + 1] = 3
    weighed = replace(one, size=size, is_weighted=True)
    right = head.logits(head.output(adapter, three))
    torch.testing.assert_close(head.logits(head.output(adapter, weighed)), right, rtol=0, atol=1e-5)
    assert not torch.allclose(head.logits(head.output(adapter, one)), right, atol=1e-4)


def test_the_mean_of_sizes_is_exact_in_half_precision() -> None:
    x = torch.tensor([[[1.0], [2.0]]]).bfloat16()
    tokens = replace(Tokens.start(x, (1, 2)), size=torch.tensor([[299.0, 1.0]]), is_weighted=True)
    mean = weighted_mean(tokens, 0)
    assert mean.dtype is torch.bfloat16
    assert mean.item() == torch.tensor(301 / 300).bfloat16().item()
    double = replace(tokens, x=tokens.x.double())
    assert weighted_mean(double, 0).dtype is torch.float64


def test_every_classifier_of_transformers_has_a_model_here() -> None:
    kinds = {kind.__name__ for name in MODELS for kind in type(MODELS[name]()).__mro__}
    assert {name for _, name in CLASSIFIERS} <= kinds


@pytest.mark.parametrize("name", ["average", "hf dinov2"])
def test_it_can_be_trained_through(name: str) -> None:
    model = classifier(name)
    classify(model, images(), MergeSpec("tome", keep_ratio=0.5)).square().sum().backward()
    assert sum(weight.grad is not None for weight in model.parameters()) > 30


class OwnHead(VisionTransformer):
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x


class OwnForward(ViTForImageClassification):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return None


@pytest.mark.parametrize(
    ("build", "code", "reason"),
    [
        (made(OwnHead, CLASSIFIED), "no_head", "OwnHead"),
        (made(VisionTransformer, CLASSIFIED | {"global_pool": ""}), "no_head", "without pooling"),
        (made(VisionTransformer, CLASSIFIED | {"global_pool": "prr"}), "no_head", "AttentionPoolPrr"),
        (lambda: tiny("hf vit"), "no_head", "ViTForImageClassification"),
        (lambda: OwnForward(ViTConfig(**TOWER)), "unsupported_tower", "its own forward"),
    ],
    ids=["own head", "no pooling", "prr", "a tower", "own forward"],
)
def test_a_head_that_is_not_known_is_refused(build: Callable[[], nn.Module], code: str, reason: str) -> None:
    with pytest.raises(VlmError, match=reason) as error:
        classify(build().eval(), images(), MergeSpec())
    assert error.value.code == code


@pytest.mark.parametrize("method", ["forward_head", "pool", "forward", "forward_features"])
def test_a_patched_head_is_refused(method: str) -> None:
    model = classifier("average")
    setattr(model, method, lambda *args, **kwargs: None)
    with pytest.raises(VlmError, match=f"del model.{method}") as error:
        classify(model, images(), MergeSpec())
    assert error.value.code == "unsupported_hook"


def test_a_patched_or_hooked_tower_is_refused_by_its_name() -> None:
    model = classifier("hf vit")
    handle = model.vit.register_forward_hook(lambda *args: None)
    with pytest.raises(VlmError, match=r"^vit carries hooks"):
        classify(model, images(), MergeSpec())
    handle.remove()
    model.vit.forward = lambda *args, **kwargs: None
    with pytest.raises(VlmError, match=r"del vit\.forward"):
        classify(model, images(), MergeSpec())


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (torch.zeros(3, 48, 48), "float32 of shape [3, 48, 48]"),
        (torch.zeros(1, 3, 48, 48, dtype=torch.uint8), "uint8 of shape [1, 3, 48, 48]"),
    ],
    ids=["one image", "bytes"],
)
@pytest.mark.parametrize("ask", [classify, tosa_encode])
def test_what_is_no_batch_of_images_is_named(ask: Callable[..., Any], pixels: Tensor, got: str) -> None:
    with pytest.raises(VlmError, match=re.escape(got)) as refused:
        ask(MODELS["average"](), pixels, MergeSpec("none"))
    assert refused.value.code == "wrong_images"


def test_depth_is_asked_for() -> None:
    with pytest.raises(VlmError) as error:
        classify(classifier("average"), images(), MergeSpec("tosa", keep_ratio=0.5))
    assert error.value.code == "missing_spatial"


@torch.inference_mode()
def test_a_classifier_is_its_tower_to_the_encoder() -> None:
    model = classifier("hf vit")
    ours = tosa_encode(model, images(), MergeSpec()).x
    torch.testing.assert_close(ours, model.vit(images()).last_hidden_state, rtol=0, atol=1e-5)
