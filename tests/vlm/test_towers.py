"""The towers of vision-language models: equal to their library, and merged in the cells of their reducers."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Idefics3Config, InternVLConfig, SmolVLMConfig
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

from tests.vlm import adapters
from tests.vlm.adapters import snapshot
from tests.vlm.towers import (
    GRIDS,
    SMALL,
    TOWERS,
    WIDTH,
    adapter_for,
    flat_patches,
    pixels_for,
    scene_for,
    tiny,
)
from tosa import (
    METHODS,
    MergePlan,
    MergeSpec,
    Tokens,
    cell_major,
    cells_of,
    make_plan,
    recover,
    row_major,
)
from tosa.grid import Grid
from vlm import ViTAdapter, VlmError, adapt, encode, feature_map, tosa_encode

MERGING = [name for name, method in METHODS.items() if method.merges]
PAIRS = [(name, method) for name in TOWERS for method in MERGING]
QWEN = [name for name in TOWERS if name.startswith("qwen")]
FEW = [
    pytest.param(name, marks=() if name in ("qwen2.5", "idefics3") else pytest.mark.long) for name in TOWERS
]
TEXT: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}


def plan_for(name: str, method: str, keep_ratio: float = 0.4) -> MergePlan:
    return make_plan(MergeSpec(method, keep_ratio=keep_ratio), adapter_for(name).shape)


@torch.inference_mode()
def run(
    name: str, method: str, pixels: Tensor, keep_ratio: float = 0.4, adapter: ViTAdapter | None = None
) -> Tokens:
    plan = plan_for(name, method, keep_ratio)
    spatial = scene_for(name)[: len(pixels)] if plan.needs_spatial else None
    return encode(adapter or adapter_for(name), pixels, plan, spatial)


def in_cell_order(name: str, theirs: Tensor, grid: Grid) -> Tensor:
    """Put the patches of the library into cells; Qwen's are already."""
    prefix, cell = TOWERS[name].num_prefix, TOWERS[name].cell
    if name in QWEN:
        return theirs
    return torch.cat([theirs[:, :prefix], cell_major(theirs[:, prefix:], grid, cell)], dim=1)


@pytest.mark.parametrize(("name", "grid"), GRIDS)
@torch.inference_mode()
def test_none_equals_the_forward_of_the_library(name: str, grid: Grid) -> None:
    pixels = pixels_for(name, grid)
    tokens = tosa_encode(adapter_for(name, grid), pixels, MergeSpec())
    theirs = in_cell_order(name, TOWERS[name].forward(tiny(name), pixels), grid)
    torch.testing.assert_close(tokens.x, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    assert tokens.cell == TOWERS[name].cell
    assert tokens.grid == (grid[0] // tokens.cell[0], grid[1] // tokens.cell[1])


@pytest.mark.parametrize("name", TOWERS)
@torch.inference_mode()
def test_every_part_of_every_block_counts(name: str) -> None:
    """The twin of the test above: with any part left out, or tokens out of order, it would fail."""
    adapter, pixels = adapter_for(name), pixels_for(name)
    right = tosa_encode(adapter, pixels, MergeSpec()).x
    scale = float(right.abs().max())

    def attends_to_nothing(x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
        attended, keys = adapter.blocks[0].attend(x, tokens, size)
        return torch.zeros_like(attended), keys

    first, *rest = adapter.blocks
    for broken in (replace(first, attend=attends_to_nothing), replace(first, mlp=torch.zeros_like)):
        wrong = tosa_encode(replace(adapter, blocks=(broken, *rest)), pixels, MergeSpec()).x
        assert not torch.allclose(wrong, right, rtol=0, atol=1e-3 * scale)
    if (shape := adapter.shape).num_cells > 1:
        mixed = replace(
            adapter, embed=lambda pixels: row_major(adapter.embed(pixels), shape.grid, shape.cell)
        )
        if name in QWEN:  # the others know no order
            wrong = tosa_encode(mixed, pixels, MergeSpec()).x
            assert not torch.allclose(wrong, right, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("name", QWEN)
@torch.inference_mode()
def test_the_flat_patches_of_the_processor_are_taken_as_they_are(name: str) -> None:
    pixels, adapter = pixels_for(name, batch=3), adapter_for(name)
    flat, _ = flat_patches(tiny(name), pixels)
    plan = make_plan(MergeSpec("tosa", keep_ratio=1.0), adapter.shape)
    scene = scene_for(name, batch=3)
    of_images = encode(adapter, pixels, plan, scene)
    for given in (flat, flat.unflatten(0, (3, -1))):
        assert torch.equal(encode(adapter, given, plan, scene).x, of_images.x)
    for wrong in (flat[:-1], flat.unflatten(0, (1, -1))):
        with pytest.raises(VlmError, match="adapt the model for this size"):
            encode(adapter, wrong, make_plan(MergeSpec(), adapter.shape))
    with pytest.raises(VlmError, match="say which are to come"):
        encode(tiny(name), flat, plan, scene)


@torch.inference_mode()
def test_the_merger_of_qwen_gives_what_the_model_gives() -> None:
    for name in QWEN:
        model, pixels = tiny(name), pixels_for(name)
        flat, grids = flat_patches(model, pixels)
        tokens = tosa_encode(adapter_for(name), pixels, MergeSpec())
        theirs = model(flat, grid_thw=grids).pooler_output
        torch.testing.assert_close(model.merger(cells_of(tokens).flatten(0, 2)), theirs, rtol=1e-5, atol=1e-5)


def random_module(module: Any) -> Any:
    torch.manual_seed(7)
    for weight in module.parameters():
        weight.data.normal_(0, 0.2)
    return module.eval()


@torch.inference_mode()
def test_the_pixel_shuffle_of_internvl_reads_the_slots_of_cells() -> None:
    config = InternVLConfig(
        vision_config=tiny("internvl").config,
        text_config={"model_type": "qwen2"} | TEXT,
        downsample_ratio=0.5,
    )
    projector = random_module(InternVLMultiModalProjector(config))
    pixels = pixels_for("internvl", (16, 16))
    theirs = TOWERS["internvl"].forward(tiny("internvl"), pixels)[:, 1:].unflatten(1, (16, 16))
    shuffled = InternVLModel.pixel_shuffle(None, theirs, 0.5).flatten(1, 2)  # pyright: ignore[reportArgumentType]
    tokens = tosa_encode(adapter_for("internvl", (16, 16)), pixels, MergeSpec())
    ours = projector(cells_of(tokens).flatten(2))
    torch.testing.assert_close(ours, projector(shuffled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "connector", "config"),
    [
        ("idefics3", Idefics3Connector, Idefics3Config),
        ("smolvlm", SmolVLMConnector, SmolVLMConfig),
        ("smolvlm, threes", SmolVLMConnector, SmolVLMConfig),
    ],
)
@torch.inference_mode()
def test_connectors_read_the_slots_of_cells(name: str, connector: Any, config: Any) -> None:
    grid, cell = TOWERS[name].grids[0], TOWERS[name].cell
    settings = config(
        vision_config=tiny(name).config, text_config={"model_type": "llama"} | TEXT, scale_factor=cell[0]
    )
    module, pixels = random_module(connector(settings)), pixels_for(name, grid)
    theirs = module(TOWERS[name].forward(tiny(name), pixels))
    tokens = tosa_encode(adapter_for(name, grid), pixels, MergeSpec())
    ours = module.modality_projection(cells_of(tokens).flatten(2))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    plan = make_plan(MergeSpec("tosa", keep_ratio=0.25), adapter_for(name, grid).shape)
    fewer = encode(adapter_for(name, grid), pixels, plan, scene_for(name, grid))
    assert module.modality_projection(cells_of(fewer).flatten(2)).shape[1] == plan.cells_out
    assert plan.cells_out == round(0.25 * theirs.shape[1])


@torch.inference_mode()
def test_pooling_of_gemma_reads_the_slots_of_cells() -> None:
    pixels, grid = pixels_for("gemma3"), SMALL["gemma3"]
    theirs = TOWERS["gemma3"].forward(tiny("gemma3"), pixels).mT.unflatten(2, grid)
    pooled = F.avg_pool2d(theirs, kernel_size=4, stride=4).flatten(2).mT
    tokens = tosa_encode(adapter_for("gemma3"), pixels, MergeSpec())
    torch.testing.assert_close(cells_of(tokens).mean(2), pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_merging_keeps_its_promises(name: str, method: str) -> None:
    plan, tower = plan_for(name, method), TOWERS[name]
    tokens, num_prefix = run(name, method, pixels_for(name)), tower.num_prefix
    assert tokens.x.shape == (2, num_prefix + plan.tokens_out, WIDTH)
    assert cells_of(tokens).shape == (2, plan.cells_out, tokens.slots, WIDTH)
    assert plan.tokens_out < plan.tokens_in or plan.cells_in == 1
    assert tokens.x.isfinite().all()
    assert tokens.source.shape == (2, plan.cells_in)
    assert (tokens.size[:, :num_prefix] == 1).all()
    if not tokens.has_holes:
        for size, source in zip(tokens.size, tokens.source, strict=True):
            held = torch.bincount(source, minlength=len(size))[num_prefix:]
            assert torch.equal(size[num_prefix:], held.float())
    if tokens.grid is not None:
        assert plan.grids is not None and tokens.grid == plan.grids[-1]
    assert recover(tokens).shape == (2, plan.tokens_in, WIDTH)


@pytest.mark.parametrize("name", ["internvl", "idefics3", "smolvlm", "gemma3", "qwen3"])
@pytest.mark.parametrize("method", MERGING)
@torch.inference_mode()
def test_any_cell_works_where_positions_are_absolute(name: str, method: str) -> None:
    if name == "qwen3":
        with pytest.raises(VlmError, match=r"its patches merge in cells of 2 x 2, not 3 x 3"):
            adapter_for(name, (12, 12), cell=(3, 3))
        return
    grid = (32, 32) if name == "gemma3" else (24, 12)
    for cell in ((1, 1), (2, 2), (4, 4)) if name == "gemma3" else ((1, 1), (2, 2), (3, 3), (4, 4)):
        adapter = adapter_for(name, grid, cell)
        plan = make_plan(MergeSpec(method, keep_ratio=0.5), adapter.shape)
        spatial = scene_for(name, grid) if plan.needs_spatial else None
        tokens = encode(adapter, pixels_for(name, grid), plan, spatial)
        assert cells_of(tokens).shape == (2, plan.cells_out, cell[0] * cell[1], WIDTH)
        assert tokens.size[:, TOWERS[name].num_prefix :].sum(1).max() <= plan.cells_in
        assert tokens.x.isfinite().all()


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_an_image_does_not_depend_on_its_neighbours(name: str, method: str) -> None:
    pixels = pixels_for(name)
    together, alone = run(name, method, pixels), run(name, method, pixels[:1])
    assert torch.equal(alone.source[0], together.source[0])
    torch.testing.assert_close(alone.x[0], together.x[0], rtol=1e-4, atol=1e-4)


def looking_at_all(adapter: ViTAdapter) -> ViTAdapter:
    """Break an adapter: its first layer attends over the images of the batch as if they were one."""
    first = adapter.blocks[0]

    def attend(x: Tensor, tokens: Tokens, size: Tensor | None) -> tuple[Tensor, Tensor]:
        attended, keys = first.attend(x, tokens, size)
        return attended + attended.mean(dim=(0, 1)), keys

    return replace(adapter, blocks=(replace(first, attend=attend), *adapter.blocks[1:]))


@pytest.mark.parametrize("name", TOWERS)
def test_the_test_of_neighbours_would_see_a_broken_mask(name: str) -> None:
    pixels, broken = pixels_for(name), looking_at_all(adapter_for(name))
    together, alone = (run(name, "tome", part, adapter=broken) for part in (pixels, pixels[:1]))
    assert not torch.allclose(alone.x[0], together.x[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TOWERS)
def test_nothing_is_left_on_the_model(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    before, kept = snapshot(model), pixels.clone()
    for method in MERGING:
        run(name, method, pixels)
    assert snapshot(model) == before
    assert torch.equal(pixels, kept)


@pytest.mark.parametrize("name", FEW)
def test_threads_with_different_plans_equal_serial(name: str) -> None:
    pixels, adapter = pixels_for(name), adapter_for(name)
    specs = [(method, keep) for method in MERGING for keep in (0.5, 0.75)]
    jobs = (specs * 12)[:200]
    serial = {spec: run(name, spec[0], pixels, spec[1]).x for spec in specs}
    with ThreadPoolExecutor(8) as pool:  # one adapter for all, so that its tables are shared
        parallel = list(pool.map(lambda spec: run(name, spec[0], pixels, spec[1], adapter).x, jobs))
    wrong = sum(not torch.equal(x, serial[spec]) for spec, x in zip(jobs, parallel, strict=True))
    assert wrong == 0


@pytest.mark.parametrize("name", TOWERS)
def test_gradients_equal_those_of_the_library(name: str) -> None:
    model, pixels = copy.deepcopy(tiny(name)).requires_grad_(True), pixels_for(name, batch=1)
    (rows, columns), tower = SMALL[name], TOWERS[name]
    adapter = adapt(model, image_size=(rows * tower.patch, columns * tower.patch), cell=tower.cell)

    def gradients(features: Tensor) -> list[Tensor | None]:
        return list(torch.autograd.grad(features.square().sum(), list(model.parameters()), allow_unused=True))

    theirs = gradients(tower.forward(model, pixels))
    ours = gradients(tosa_encode(adapter, pixels, MergeSpec()).x)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            scale = float(other.abs().max())
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * max(scale, 1))


@pytest.mark.parametrize("name", QWEN)
@pytest.mark.parametrize("part", ["layer", "attention", "mlp"])
@torch.inference_mode()
def test_forward_hooks_of_qwen_run(name: str, part: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    block = model.blocks[1]
    module = {"layer": block, "attention": block.attn, "mlp": block.mlp}[part]
    plain = tosa_encode(adapter_for(name), pixels, MergeSpec()).x
    with_hook = module.register_forward_hook(lambda module, args, output: output * 1.5)
    try:
        ours = tosa_encode(adapter_for(name), pixels, MergeSpec()).x
        theirs = TOWERS[name].forward(model, pixels)
    finally:
        with_hook.remove()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    assert not torch.allclose(ours, plain, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "part"), [("qwen2.5", "rotary_pos_emb"), ("qwen3", "rotary_pos_emb"), ("qwen3", "pos_embed")]
)
@torch.inference_mode()
def test_hooks_that_would_not_run_are_refused(name: str, part: str) -> None:
    handle = getattr(tiny(name), part).register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(VlmError, match=f"{part} carries hooks") as error:
            tosa_encode(adapter_for(name), pixels_for(name), MergeSpec())
    finally:
        handle.remove()
    assert error.value.code == "unsupported_hook"


@pytest.mark.parametrize("name", QWEN)
def test_what_qwen_cannot_take_is_refused(name: str) -> None:
    block = 2 * TOWERS[name].patch
    with pytest.raises(VlmError, match=f"takes sides that are multiples of {block} px") as error:
        adapt(tiny(name), image_size=(block, block + TOWERS[name].patch))
    assert error.value.code == "wrong_image_size"
    with pytest.raises(VlmError, match="say which are to come, with image_size") as error:
        adapt(tiny(name))
    assert error.value.code == "unsupported_tower"
    with pytest.raises(VlmError, match="adapt the model for this size"):
        encode(adapter_for(name), pixels_for(name, (4, 4)), plan_for(name, "none", 1.0))


@pytest.mark.parametrize("name", ["dinov3", "hf dinov3", "hf beit", "eva02", "sam, whole windows"])
def test_cells_are_refused_where_attention_knows_the_places_of_patches(name: str) -> None:
    with pytest.raises(VlmError, match="needs positions that are added at the entry only") as error:
        adapt(adapters.tiny(name), cell=(2, 2))
    assert error.value.code == "unsupported_tower"


def test_cells_that_do_not_fill_the_grid_are_refused() -> None:
    with pytest.raises(VlmError, match="10 x 14 patches are no whole cells of 3 x 3") as error:
        adapter_for("idefics3", (10, 14), cell=(3, 3))
    assert error.value.code == "wrong_image_size"


@torch.inference_mode()
def test_a_plan_for_other_cells_does_not_fit() -> None:
    plan = make_plan(MergeSpec(), adapter_for("idefics3", cell=(1, 1)).shape)
    with pytest.raises(VlmError, match="does not fit") as error:
        encode(adapter_for("idefics3"), pixels_for("idefics3"), plan)
    assert error.value.code == "wrong_plan"


@pytest.mark.parametrize("name", ["internvl", "idefics3", "qwen3", "qwen2.5"])
@torch.inference_mode()
def test_the_feature_map_is_row_major(name: str) -> None:
    grid, pixels = SMALL[name], pixels_for(name)
    tower = TOWERS[name]
    theirs = tower.forward(tiny(name), pixels)[:, tower.num_prefix :]
    theirs = row_major(theirs, grid, tower.cell) if name in QWEN else theirs
    ours = feature_map(adapter_for(name), pixels, MergeSpec())
    assert ours.shape == (2, WIDTH, *grid)
    torch.testing.assert_close(ours.flatten(2).mT, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", QWEN)
@torch.inference_mode()
def test_half_precision_runs_as_in_the_library(name: str) -> None:
    model = copy.deepcopy(tiny(name)).to(torch.bfloat16)
    (rows, columns), patch = SMALL[name], TOWERS[name].patch
    adapter, pixels = adapt(model, image_size=(rows * patch, columns * patch)), pixels_for(name).bfloat16()
    theirs = TOWERS[name].forward(model, pixels).float()
    ours = tosa_encode(adapter, pixels, MergeSpec()).x
    assert ours.dtype is torch.bfloat16
    assert (ours.float() - theirs).norm() < 0.03 * theirs.norm()


@pytest.mark.long
@pytest.mark.parametrize("name", ["internvl", "qwen2.5"])
def test_merging_in_cells_is_one_graph(name: str) -> None:
    torch.compiler.reset()  # else the sizes of the tower before become symbols, and take minutes
    adapter, pixels, scene = adapter_for(name), pixels_for(name), scene_for(name)
    plan = make_plan(MergeSpec("tosa", keep_ratio=0.4), adapter.shape)

    def merged(pixels: Tensor) -> Tensor:
        return encode(adapter, pixels, plan, scene).x

    with torch.no_grad():
        eager = merged(pixels)
        compiled = torch.compile(merged, fullgraph=True, backend="eager")(pixels)
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)
