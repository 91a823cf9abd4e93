"""What can be adapted and what is refused, at which input sizes, and what the functions on top promise."""

from __future__ import annotations

import ast
import copy
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.eva import Eva
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from transformers import SiglipVisionModel

import vlm
from tests.test_architecture import imports
from tests.vlm import towers
from tests.vlm.adapters import (
    DINO,
    FAMILIES,
    LAYERS,
    PATCH_PX,
    SAM,
    SAMS,
    TIMM,
    adapter_for,
    made,
    naflex,
    pixels_for,
    tiny,
)
from tosa import METHODS, EncoderShape, MergeSpec, Tokens, make_plan, recover
from vlm import Block, VlmError, adapt, encode, feature_map, tosa_encode
from vlm.adapters import ADAPTERS

HALF = MergeSpec("tome", keep_ratio=0.5)


class OtherForward(VisionTransformer):
    def forward_features(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return x


class OtherSiglip(SiglipVisionModel):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return None


def attention_gated(model: Any) -> Any:
    """Give every attention a gate, as timm's Attention(gated=True) has."""
    for block in model.blocks:
        block.attn.gate = nn.Linear(TIMM["embed_dim"], TIMM["embed_dim"])
    return model


NAFLEX_KWARGS = {key: value for key, value in TIMM.items() if key != "img_size"}
NO_GRID = {"pos_embed": "none", "pos_embed_grid_size": None}
MROPE = {"use_rot_pos_emb": True, "rope_type": "mrope", "rope_mrope_section": (2, 3, 3)}
UNSUPPORTED: dict[str, Any] = {
    "resnet": (lambda: timm.create_model("resnet10t"), "timm VisionTransformer, timm Eva"),
    "a bare module": (lambda: nn.Linear(2, 2), "transformers SiglipVisionModel"),
    "own forward": (made(OtherForward, TIMM), "its own forward_features"),
    "own forward, transformers": (lambda: OtherSiglip(tiny("siglip").config), "its own forward"),
    "parallel blocks": (
        made(VisionTransformer, TIMM | {"block_fn": ParallelScalingBlock}),
        "ParallelScaling",
    ),
    "differential attention": (made(VisionTransformer, TIMM | {"attn_layer": "diff"}), "is DiffAttention"),
    "patch dropout": (made(VisionTransformer, TIMM | {"patch_drop_rate": 0.5}), "patch dropout"),
    "eva patch dropout": (made(Eva, TIMM | {"patch_drop_rate": 0.5}), "patch dropout"),
    "multimodal rotary": (made(Eva, TIMM | MROPE), "RotaryEmbeddingMRope"),
    "parallel blocks of naflex": (
        made(NaFlexVit, NAFLEX_KWARGS | {"block_fn": ParallelScalingBlock}),
        "ParallelScaling",
    ),
    "patch dropout of naflex": (made(NaFlexVit, NAFLEX_KWARGS | {"patch_drop_rate": 0.5}), "patch dropout"),
    "naflex without a size": (made(NaFlexVit, NAFLEX_KWARGS | NO_GRID), "say which is to come"),
    "random coordinates of transformers": (FAMILIES["hf dinov3"].build, "drawn at random"),
    "random coordinates": (made(Eva, TIMM | DINO | {"rope_shift_coords": 0.5}), "drawn at random"),
    "rotary sam": (made(VisionTransformerSAM, SAM | {"use_rel_pos": False, "use_rope": True}), "use_rope"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    build, reason = UNSUPPORTED[name]
    with pytest.raises(VlmError, match=reason) as error:
        adapt(build().train())
    assert error.value.code == "unsupported_tower"


def test_every_adapter_has_a_family() -> None:
    models = [*map(tiny, FAMILIES), *map(towers.tiny, towers.TOWERS)]
    kinds = {kind.__name__ for model in models for kind in type(model).__mro__}
    assert {name for _, name in ADAPTERS} <= kinds


def test_patch_dropout_and_random_coordinates_rest_outside_training() -> None:
    for name in ("patch dropout", "random coordinates"):
        build = UNSUPPORTED[name][0]
        model = build().eval()
        pixels = pixels_for("deit")
        with torch.inference_mode():
            ours, theirs = tosa_encode(model, pixels, MergeSpec()).x, model.forward_features(pixels)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [VisionTransformer, Eva])
@torch.inference_mode()
def test_gated_attention_is_part_of_the_chain(kind: type[Any]) -> None:
    pixels, model = pixels_for("deit"), kind(**TIMM).eval()
    plain = model.forward_features(pixels)
    ours = tosa_encode(attention_gated(model), pixels, MergeSpec()).x
    torch.testing.assert_close(ours, model.forward_features(pixels), rtol=0, atol=1e-5)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_a_model_of_transformers_does_not_import_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("timm_vit", "eva", "sam", "rotary", "timm_beit", "naflex"):
        monkeypatch.setitem(sys.modules, f"vlm.adapters.{name}", None)  # importing it now fails
    fixed = ("siglip", "siglip2", "clip", "internvl", "idefics3", "smolvlm")
    for name in (*fixed, *(name for name in FAMILIES if name.startswith("hf"))):
        adapt(tiny(name))
    with pytest.raises(ImportError):
        adapt(tiny("deit"))


def test_only_the_adapters_for_timm_import_it() -> None:
    files = Path(vlm.__file__).parent.rglob("*.py")
    users = {file.name for file in files for name in imports(ast.parse(file.read_text())) if name == "timm"}
    assert users == {"timm_vit.py", "eva.py", "sam.py", "rotary.py", "timm_beit.py", "naflex.py"}


def test_adapting_is_cheap_enough_for_every_call() -> None:
    model, times = made(VisionTransformer, TIMM | {"depth": 24})(), list[float]()
    for _ in range(50):
        start = time.perf_counter()
        adapt(model)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3  # 0.15 ms where it was written


# Layers.


@pytest.mark.parametrize("feature_layer", [-1, -2, -3, 2])
@pytest.mark.parametrize("name", ["siglip", "clip", "hf vit", "hf dinov2", "hf beit"])
@torch.inference_mode()
def test_feature_layers_are_the_hidden_states_of_transformers(name: str, feature_layer: int) -> None:
    model, pixels = tiny(name), pixels_for(name)
    output = model(pixels, output_hidden_states=True)
    adapter = adapt(model, feature_layer)
    ours = encode(adapter, pixels, make_plan(MergeSpec(), adapter.shape)).x
    torch.testing.assert_close(ours, output.hidden_states[feature_layer], rtol=0, atol=1e-5)
    finished = tosa_encode(model, pixels, MergeSpec(), feature_layer=feature_layer).x
    theirs = output.last_hidden_state if feature_layer == -1 else output.hidden_states[feature_layer]
    torch.testing.assert_close(finished, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("feature_layer", [-2, 1])
@pytest.mark.parametrize("name", ["deit", "dinov3", "sam, cut windows"])
@torch.inference_mode()
def test_feature_layers_are_the_intermediates_of_timm(name: str, feature_layer: int) -> None:
    model, pixels = tiny(name), pixels_for(name)
    layer = feature_layer - 1 if feature_layer > 0 else LAYERS + feature_layer
    theirs = model.forward_intermediates(pixels, indices=[layer], intermediates_only=True)[0]
    tokens = tosa_encode(model, pixels, MergeSpec(), feature_layer=feature_layer)
    torch.testing.assert_close(tokens.x[:, tokens.num_prefix :], theirs.flatten(2).mT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["deit", "siglip", "dinov3", SAMS[0]])
@torch.inference_mode()
def test_an_adapter_of_an_earlier_layer_stops_before_what_follows_the_last(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    early, last, named = adapt(model, -2), adapt(model), adapt(model, LAYERS)
    inner = encode(early, pixels, make_plan(MergeSpec(), early.shape))
    assert torch.equal(tosa_encode(early, pixels, MergeSpec()).x, inner.x)
    assert torch.equal(tosa_encode(model, pixels, MergeSpec(), feature_layer=-2).x, inner.x)
    dense = feature_map(early, pixels, MergeSpec())
    assert torch.equal(dense.flatten(2).mT, recover(inner))
    for finished in (last, named):
        assert torch.equal(
            feature_map(finished, pixels, MergeSpec()), feature_map(model, pixels, MergeSpec())
        )
        plain = encode(finished, pixels, make_plan(MergeSpec(), finished.shape)).x
        unfinished = torch.equal(tosa_encode(finished, pixels, MergeSpec()).x, plain)
        assert unfinished == (name == SAMS[0])  # which has a neck and no norm before it
        assert finished.neck is not None or name != SAMS[0]


def test_an_adapter_has_its_layers_already() -> None:
    with pytest.raises(VlmError, match="give feature_layer to adapt") as error:
        tosa_encode(adapter_for("siglip"), pixels_for("siglip"), MergeSpec(), feature_layer=-2)
    assert error.value.code == "wrong_feature_layer"


def test_windows_are_gone_where_only_global_layers_run() -> None:
    build = made(VisionTransformerSAM, SAM | {"window_size": 3, "global_attn_indexes": (0, 2)})
    shapes = [adapt(build(), layers).shape for layers in (1, 2, 3)]
    assert [shape.window for shape in shapes] == [None, (3, 3), (3, 3)]
    assert [shape.global_layers for shape in shapes] == [(0,), (0,), (0, 2)]


@pytest.mark.parametrize("feature_layer", [0, LAYERS + 1, -LAYERS - 1])
@pytest.mark.parametrize("name", ["deit", "dinov3", "siglip", "clip", SAMS[0]])
def test_a_layer_that_does_not_exist_is_refused(name: str, feature_layer: int) -> None:
    with pytest.raises(VlmError, match="does not exist in 3 layers"):
        adapt(tiny(name), feature_layer)


# Input sizes.


@pytest.mark.parametrize("size", [(40, 64), (56, 48), (48, 48)])
@pytest.mark.parametrize(
    "kwargs", [{}, DINO, {"use_rot_pos_emb": True}, {"rope_type": "mixed", "use_rot_pos_emb": True}], ids=str
)
@torch.inference_mode()
def test_models_of_any_size_take_the_real_one(kwargs: dict[str, Any], size: tuple[int, int]) -> None:
    build = made(Eva if kwargs else VisionTransformer, TIMM | kwargs | {"dynamic_img_size": True})
    model: Any = build().eval()
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7))
    tokens = tosa_encode(model, pixels, MergeSpec())
    torch.testing.assert_close(tokens.x, model.forward_features(pixels), rtol=0, atol=1e-5)
    assert tokens.grid == (size[0] // PATCH_PX, size[1] // PATCH_PX)
    merged = tosa_encode(model, pixels, HALF)
    assert merged.x.shape[1] == merged.num_prefix + round(tokens.source.shape[1] / 2)


@torch.inference_mode()
def test_padded_images_count_their_last_patches() -> None:
    padding = {"dynamic_img_size": True, "dynamic_img_pad": True}
    model: Any = made(VisionTransformer, TIMM | padding)().eval()
    pixels = torch.randn(1, 3, 45, 50, generator=torch.Generator().manual_seed(7))
    tokens = tosa_encode(model, pixels, MergeSpec())
    torch.testing.assert_close(tokens.x, model.forward_features(pixels), rtol=0, atol=1e-5)
    assert tokens.grid == (6, 7)


@pytest.mark.parametrize("size", [(40, 64), (16, 24)])
@torch.inference_mode()
def test_siglip2_takes_images_of_any_whole_patches(size: tuple[int, int]) -> None:
    model = tiny("siglip2")
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(
        tosa_encode(model, pixels, MergeSpec()).x, naflex(model, pixels), rtol=0, atol=1e-5
    )


RESIZED = ["hf dinov2", "hf dinov2 registers", "hf dinov3", "hf beit", "hf beit shared", "hf beit absolute"]
NAFLEX = [name for name in FAMILIES if name.startswith("naflex")]


@pytest.mark.parametrize("size", [(40, 64), (56, 48), (48, 40)])
@pytest.mark.parametrize("name", [*RESIZED, *NAFLEX])
@torch.inference_mode()
def test_towers_that_resize_their_positions_take_other_sizes(name: str, size: tuple[int, int]) -> None:
    model = tiny(name)
    pixels = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(7))
    tokens = tosa_encode(model, pixels, MergeSpec())
    torch.testing.assert_close(tokens.x, FAMILIES[name].forward(model, pixels), rtol=0, atol=1e-5)
    assert tokens.grid == (size[0] // PATCH_PX, size[1] // PATCH_PX)
    merged = tosa_encode(model, pixels, HALF)
    assert merged.x.shape[1] == merged.num_prefix + round(tokens.source.shape[1] / 2)


@pytest.mark.parametrize("name", RESIZED)
@torch.inference_mode()
def test_what_is_left_of_a_patch_is_not_seen(name: str) -> None:
    model, pixels = tiny(name), torch.randn(1, 3, 45, 52, generator=torch.Generator().manual_seed(7))
    tokens = tosa_encode(model, pixels, MergeSpec())
    torch.testing.assert_close(tokens.x, FAMILIES[name].forward(model, pixels), rtol=0, atol=1e-5)
    assert tokens.grid == (5, 6)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("deit", (56, 48)),
        ("dinov3", (48, 56)),
        ("siglip", (56, 48)),
        ("clip", (50, 48)),
        ("siglip2", (44, 48)),
        ("sam, cut windows", (44, 48)),
        *(("hf vit", (56, 48)), ("hf deit", (47, 48)), ("hf dinov2", (7, 48)), ("hf dinov3", (48, 4))),
        *(("hf beit", (4, 4)), ("timm beit", (56, 48)), ("naflex", (44, 48))),
    ],
)
def test_images_a_model_cannot_take_are_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(VlmError, match=f"{size[0]} x {size[1]} px but takes") as error:
        tosa_encode(tiny(name), torch.zeros(1, 3, *size), MergeSpec())
    assert error.value.code == "wrong_image_size"


@pytest.mark.parametrize(
    "name",
    [
        *("siglip2", "deit", "siglip", "clip", "dinov3", SAMS[0], "hf vit", "hf dinov2", "hf dinov3"),
        *("hf beit", "timm beit", "naflex"),
    ],
)
def test_an_adapter_takes_only_the_size_it_was_made_for(name: str) -> None:
    with pytest.raises(VlmError) as error:
        tosa_encode(adapter_for(name), torch.zeros(1, 3, 64, 64), MergeSpec())
    assert error.value.code == "wrong_image_size"


# encode, tosa_encode, feature_map.


@torch.inference_mode()
def test_two_lines_are_enough() -> None:
    model, pixels = tiny("deit"), pixels_for("deit")
    features = tosa_encode(model, pixels, MergeSpec(method="tome", keep_ratio=0.5))
    assert features.x.shape == (2, 1 + 18, 32)


@pytest.mark.parametrize(
    "change", [{"grid": (6, 5)}, {"num_prefix": 0}, {"rotary": True}, {"window": (3, 3)}]
)
def test_a_plan_for_another_encoder_is_refused(change: dict[str, Any]) -> None:
    adapter = adapter_for("deit")
    plan = make_plan(MergeSpec(), replace(adapter.shape, **change))
    with pytest.raises(VlmError) as error:
        encode(adapter, pixels_for("deit"), plan)
    assert error.value.code == "wrong_plan"


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (None, "missing_spatial"),
        ((2, 35, 12), "wrong_spatial"),
        ((1, 36, 12), "wrong_spatial"),
        ((2, 36), "wrong_spatial"),
    ],
)
@pytest.mark.parametrize(
    "spec",
    [MergeSpec("tosa", keep_ratio=0.5), MergeSpec("cubist", keep_ratio=0.5, options={"depth_weight": 0.5})],
    ids=str,
)
def test_spatial_tokens_that_do_not_fit_are_refused_before_any_work(
    spec: MergeSpec, shape: tuple[int, ...] | None, code: str
) -> None:
    def embed(pixels: Tensor) -> Tensor:
        raise AssertionError("the model ran")

    adapter = adapter_for("deit")
    with pytest.raises(VlmError) as error:
        encode(
            replace(adapter, embed=embed),
            pixels_for("deit"),
            make_plan(spec, adapter.shape),
            None if shape is None else torch.ones(shape),
        )
    assert error.value.code == code


@pytest.mark.parametrize("tokens", [36, 37])
@torch.inference_mode()
def test_spatial_tokens_may_have_a_prefix(tokens: int) -> None:
    spec, pixels = MergeSpec("tosa", keep_ratio=0.5), pixels_for("deit")
    assert tosa_encode(tiny("deit"), pixels, spec, torch.ones(2, tokens, 12)).x.shape == (2, 19, 32)


def test_a_plan_with_more_layers_is_refused_and_one_with_fewer_runs() -> None:
    adapter = adapter_for("deit")
    with pytest.raises(VlmError):
        encode(
            adapter, pixels_for("deit"), make_plan(MergeSpec(), replace(adapter.shape, num_layers=LAYERS + 1))
        )
    fewer = EncoderShape(LAYERS - 1, (6, 6), num_prefix=1)
    tokens = encode(tiny("deit"), pixels_for("deit"), make_plan(HALF, fewer))
    assert tokens.x.shape[1] == 1 + 18


@torch.inference_mode()
def test_the_trace_holds_what_every_layer_leaves() -> None:
    adapter, trace = adapter_for("dinov3"), list[Tokens]()
    plan = make_plan(replace(HALF, order="merge"), adapter.shape)
    tokens = encode(adapter, pixels_for("dinov3"), plan, trace=trace)
    assert [left.x.shape[1] for left in trace] == list(plan.counts[1:])
    assert trace[-1] is tokens


@pytest.mark.parametrize(
    ("method", "weighed"),
    [
        ("tome", [False, True, True]),
        ("cubist", [True, True, True]),
        ("tofu", [False, False, True]),
        ("saint", [False] * 3),
    ],
)
@torch.inference_mode()
def test_attention_is_weighed_only_once_sizes_can_differ(method: str, weighed: list[bool]) -> None:
    adapter, seen = adapter_for("deit"), list[bool]()

    def watched(block: Block) -> Block:
        def attend(x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
            seen.append(size is not None)
            return block.attend(x, tokens, size)

        return replace(block, attend=attend)

    spec = MergeSpec(method, keep_ratio=0.5, layers=(0, 1), prop_attn=True)
    tosa_encode(replace(adapter, blocks=tuple(map(watched, adapter.blocks))), pixels_for("deit"), spec)
    assert seen == weighed


@pytest.mark.parametrize("order", ["raster", "merge"])
@torch.inference_mode()
def test_patches_are_followed_only_where_they_are_needed(order: Any) -> None:
    adapter, pixels = adapter_for("deit"), pixels_for("deit")
    plan = make_plan(replace(HALF, order=order), adapter.shape)
    without = encode(adapter, pixels, plan, track_source=False)
    assert torch.equal(without.x, encode(adapter, pixels, plan).x)
    assert without.source.shape[1] == (36 if order == "raster" else 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["deit", "dinov3", "siglip2"])
@torch.inference_mode()
def test_features_come_back_on_the_full_grid(name: str, method: str) -> None:
    pixels, spec = pixels_for(name), MergeSpec(method, keep_ratio=0.5 if METHODS[method].merges else None)
    spatial, model = torch.rand(2, 36, 4, generator=torch.Generator().manual_seed(8)), tiny(name)
    dense = feature_map(model, pixels, spec, spatial)
    tokens = tosa_encode(model, pixels, spec, spatial)
    assert dense.shape == (2, 32, 6, 6)
    assert dense.isfinite().all()
    if tokens.blend is None:
        torch.testing.assert_close(dense.flatten(2).mT, recover(tokens), rtol=0, atol=1e-5)
    if method == "none":
        torch.testing.assert_close(dense.flatten(2).mT, tokens.x[:, tokens.num_prefix :], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_half_precision_runs_in_half_precision(name: str) -> None:
    model, pixels = copy.deepcopy(tiny(name)).bfloat16(), pixels_for(name).bfloat16()
    theirs = FAMILIES[name].forward(model, pixels)
    ours = tosa_encode(model, pixels, MergeSpec()).x
    assert ours.dtype is torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.1)
    methods = ["cubist"] if name in SAMS else ["cubist", "tome"]
    for method in methods:
        tokens = tosa_encode(model, pixels, MergeSpec(method, keep_ratio=0.5, prop_attn=True))
        assert tokens.x.dtype is torch.bfloat16
        assert tokens.x.isfinite().all()


@pytest.mark.parametrize("name", [name for name in FAMILIES if hasattr(tiny(name), "blocks")])
def test_the_widths_count_the_multiplications_of_the_mlp(name: str) -> None:
    linear = [m for m in tiny(name).blocks[0].mlp.modules() if isinstance(m, nn.Linear)]
    shape = adapter_for(name).shape
    counted = 2 * shape.hidden_size * shape.mlp_size
    assert counted == pytest.approx(sum(m.weight.numel() for m in linear), rel=0.01)
    assert 0 < make_plan(MergeSpec("cubist", keep_ratio=0.5), shape).flops_ratio < 1


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("siglip", "tome"),
        pytest.param("sam, cut windows", "cubist", marks=pytest.mark.long),
        pytest.param("hf beit", "tome", marks=pytest.mark.long),
        pytest.param("dinov3", "tome", marks=pytest.mark.long),
        pytest.param("dinov3", "cubist", marks=pytest.mark.long),
        pytest.param("hf dinov3", "tome", marks=pytest.mark.long),
        pytest.param("timm beit", "cubist", marks=pytest.mark.long),
        pytest.param("naflex axial", "tome", marks=pytest.mark.long),
    ],
)
@torch.inference_mode()
def test_the_loop_compiles_as_one_graph(name: str, method: str) -> None:
    torch.compiler.reset()
    adapter, pixels = adapter_for(name), pixels_for(name)
    plan = make_plan(MergeSpec(method, keep_ratio=0.5), adapter.shape)

    def run(pixels: Tensor) -> Tensor:
        return encode(adapter, pixels, plan).x

    compiled = torch.compile(run, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(pixels), run(pixels), rtol=0, atol=1e-5)
