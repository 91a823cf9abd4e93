"""Hooks and patches on a user's model: forward hooks run as in the library, the rest is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from tests.vlm.adapters import FAMILIES, FEW, LAYERS, SAMS, pixels_for, tiny
from tosa import METHODS, MergeSpec, make_plan
from vlm import VlmError, adapt, encode, tosa_encode

HALF = MergeSpec("tome", keep_ratio=0.5)
LAYER_LISTS = ("blocks", "encoder.layers", "encoder.layer", "layers", "model.layer")
ATTENTIONS = ("attn", "self_attn", "attention")
MERGED = [
    (name, method.name)
    for name in ("deit", "hf beit", SAMS[0])
    for method in METHODS.values()
    if method.merges and (method.keeps_grid or name not in SAMS)
]


def layers_of(model: Any) -> Any:
    for path in LAYER_LISTS:
        found: Any = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    raise AssertionError(type(model))


def part(name: str, which: str) -> nn.Module:
    """Return layer 1 of a family, or its attention or MLP."""
    layer = layers_of(tiny(name))[1]
    if which == "layer":
        return layer
    if which == "mlp":
        return layer.mlp
    (attention,) = (getattr(layer, each) for each in ATTENTIONS if hasattr(layer, each))
    return attention


def scaled(value: Any, factor: float) -> Any:
    """Scale the tokens among what a module gets or returns."""
    if isinstance(value, tuple):
        return (scaled(value[0], factor), *value[1:])
    return value * factor


def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
    return scaled(args, 0.7) if args else None  # SigLIP and CLIP pass their tokens by name


def before_by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "hidden_states" in kwargs:
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] * 0.7}
    return scaled(args, 0.7), kwargs


def after(module: nn.Module, args: Any, output: Any) -> Any:
    return scaled(output, 0.5)


def after_by_name(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
    assert isinstance(kwargs, dict)
    return scaled(output, 0.5)


REGISTER: dict[str, Callable[[nn.Module], Any]] = {
    "pre": lambda module: module.register_forward_pre_hook(before),
    "pre, kwargs": lambda module: module.register_forward_pre_hook(before_by_name, with_kwargs=True),
    "post": lambda module: module.register_forward_hook(after),
    "post, kwargs": lambda module: module.register_forward_hook(after_by_name, with_kwargs=True),
}


@contextmanager
def hooked(module: nn.Module, *kinds: str) -> Iterator[None]:
    with ExitStack() as stack:
        for kind in kinds:
            stack.callback(REGISTER[kind](module).remove)
        yield


HOOKED = [
    pytest.param(*one, marks=() if one[0] in FEW or at % 5 == 0 else pytest.mark.long)
    for at, one in enumerate(product(FAMILIES, ("layer", "attention", "mlp"), REGISTER))
]
"""The towers of `FEW` with every kind of hook at every part, and of the others one in five."""


@pytest.mark.parametrize(("name", "which", "kind"), HOOKED)
@torch.inference_mode()
def test_forward_hooks_do_what_they_do_in_the_library(name: str, which: str, kind: str) -> None:
    model, pixels, module = tiny(name), pixels_for(name), part(name, which)
    plain = tosa_encode(model, pixels, MergeSpec()).x
    with hooked(module, kind):
        ours = tosa_encode(model, pixels, MergeSpec()).x
        theirs = FAMILIES[name].forward(model, pixels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    by_name = which == "attention" and name in ("siglip", "siglip2", "clip", "idefics3", "smolvlm")
    assert torch.equal(ours, plain) == (by_name and kind == "pre")
    assert torch.equal(tosa_encode(model, pixels, MergeSpec()).x, plain)


@pytest.mark.parametrize("name", ["deit", "hf dinov2", "sam, cut windows"])
@torch.inference_mode()
def test_several_hooks_run_in_their_order(name: str) -> None:
    model, pixels = tiny(name), pixels_for(name)
    with hooked(part(name, "layer"), *REGISTER), hooked(part(name, "attention"), *REGISTER):
        ours = tosa_encode(model, pixels, MergeSpec()).x
        theirs = FAMILIES[name].forward(model, pixels)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_a_hook_sees_what_the_library_would_show_it(name: str) -> None:
    """Shapes and kinds, and the module itself; masks and positions of the loop's own are not shown."""
    model, pixels, shown = tiny(name), pixels_for(name), list[Any]()

    def watch(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tokens = [each.shape for each in (*args, *kwargs.values()) if isinstance(each, Tensor)][:1]
        first = output[0] if isinstance(output, tuple) else output
        shown.append((module, tokens, len(args), type(output), first.shape))

    modules = [part(name, which) for which in ("layer", "attention", "mlp")]
    handles = [module.register_forward_hook(watch, with_kwargs=True) for module in modules]
    tosa_encode(model, pixels, MergeSpec())
    ours = shown.copy()
    shown.clear()
    FAMILIES[name].forward(model, pixels)
    for handle in handles:
        handle.remove()
    assert len(ours) == 3
    assert ours == shown


@pytest.mark.parametrize(("name", "method"), MERGED)
@torch.inference_mode()
def test_hooks_see_the_tokens_there_are_while_merging(name: str, method: str) -> None:
    model, pixels, shapes = tiny(name), pixels_for(name), list[tuple[int, int]]()

    def watch(module: nn.Module, args: Any, output: Any) -> None:
        given, left = args[0], output
        shapes.append((given[0].numel() // given.shape[-1], left[0].numel() // left.shape[-1]))

    adapter = adapt(model)
    plan = make_plan(MergeSpec(method, keep_ratio=0.5), adapter.shape)
    handles = [layer.register_forward_hook(watch) for layer in layers_of(model)]
    encode(adapter, pixels, plan, torch.ones(2, 36, 4))
    for handle in handles:
        handle.remove()
    assert len(shapes) == LAYERS
    assert [left for _, left in shapes] == list(plan.counts[1:])
    entries = plan.counts[1:] if plan.at_entry else plan.counts[:-1]
    assert [given for given, _ in shapes] == list(entries)


@torch.inference_mode()
def test_a_hook_that_changes_merged_tokens_changes_the_rest() -> None:
    model, pixels = tiny("deit"), pixels_for("deit")
    plain = tosa_encode(model, pixels, HALF)
    with hooked(part("deit", "layer"), "post"):
        changed = tosa_encode(model, pixels, HALF)
    assert changed.x.shape == plain.x.shape
    assert not torch.allclose(changed.x, plain.x, atol=1e-3)
    assert torch.equal(changed.size.sum(1), plain.size.sum(1))


@torch.inference_mode()
def test_hooks_of_all_modules_run_too() -> None:
    model, pixels, seen = tiny("deit"), pixels_for("deit"), list[tuple[str, nn.Module]]()
    handles = [
        register_module_forward_pre_hook(lambda module, args: seen.append(("pre", module))),
        register_module_forward_hook(lambda module, args, output: seen.append(("post", module))),
    ]
    try:
        tosa_encode(model, pixels, MergeSpec())
    finally:
        for handle in handles:
            handle.remove()
    for layer in model.blocks:
        for module in (layer, layer.attn, layer.mlp):
            assert [kind for kind, each in seen if each is module] == ["pre", "post"]


@pytest.mark.parametrize("name", ["siglip", "hf vit", "hf dinov2", "hf dinov3", "hf beit"])
@torch.inference_mode()
def test_the_hooks_of_transformers_itself_are_no_obstacle(name: str) -> None:
    """It leaves hooks on layers and attention once hidden states were asked for."""
    model, pixels = FAMILIES[name].build().eval(), pixels_for(name)
    plain = tosa_encode(model, pixels, HALF).x
    model(pixels, output_hidden_states=True)
    assert any(module._forward_hooks for module in model.modules())
    assert torch.equal(tosa_encode(model, pixels, HALF).x, plain)


def refused(model: Any, *words: str) -> None:
    with pytest.raises(VlmError) as error:
        tosa_encode(model, torch.zeros(1, 3, 48, 48), MergeSpec())
    assert error.value.code == "unsupported_hook"
    for word in words:
        assert word in str(error.value)


PATCHED = [
    ("deit", "blocks.1", "forward"),
    ("deit", "blocks.1.attn", "forward"),
    ("deit", "blocks", "forward"),
    ("deit", "blocks.2.attn.attn_drop", "forward"),
    ("dinov3", "blocks.0.attn", "forward"),
    ("sam, no windows", "blocks.0.attn", "forward"),
    ("timm beit", "blocks.0.attn", "forward"),
    ("naflex", "blocks.0.attn", "forward"),
    ("siglip", "encoder.layers.1", "forward"),
    ("siglip", "encoder", "forward"),
    ("hf vit", "layers.1.attention", "forward"),
    ("hf dinov2", "encoder.layer.1.attention", "forward"),
    ("hf dinov3", "model.layer.0", "forward"),
    ("hf dinov3", "rope_embeddings", "forward"),
    ("hf beit", "layers.0.attention", "forward"),
]


@pytest.mark.parametrize(("name", "path", "method"), PATCHED)
def test_a_method_set_on_an_instance_is_refused(name: str, path: str, method: str) -> None:
    model = FAMILIES[name].build().eval()
    module = model.get_submodule(path)
    setattr(module, method, lambda x, *args, **kwargs: torch.zeros_like(x))
    refused(model, path, f"del {path}.{method}")
    delattr(module, method)
    tosa_encode(model, torch.zeros(1, 3, 48, 48), MergeSpec())


@pytest.mark.parametrize(
    "name", ["deit", "dinov3", "timm beit", "naflex", "siglip", "clip", "hf dinov3", SAMS[0]]
)
def test_a_patched_model_is_refused(name: str) -> None:
    model: Any = FAMILIES[name].build().eval()
    model.forward = lambda *args, **kwargs: None
    refused(model, "the model", "del model.forward")
    del model.forward
    handle = model.register_forward_hook(lambda *args: None)
    refused(model, "the model", "remove them")
    handle.remove()
    tosa_encode(model, torch.zeros(1, 3, 48, 48), MergeSpec())


def test_patched_features_of_timm_are_refused() -> None:
    model: Any = FAMILIES["deit"].build().eval()
    model.forward_features = lambda *args, **kwargs: None
    refused(model, "the model", "del model.forward_features")


@pytest.mark.parametrize("path", ["mlp", "norm1", "attn.qkv", "attn.proj", "mlp.fc1"])
@torch.inference_mode()
def test_a_patch_on_what_the_loop_calls_is_honoured(path: str) -> None:
    model, pixels = FAMILIES["deit"].build().eval(), pixels_for("deit")
    module: Any = model.get_submodule(f"blocks.1.{path}")
    own = module.forward
    module.forward = lambda x: own(x) * 0.5
    ours = tosa_encode(model, pixels, MergeSpec()).x
    torch.testing.assert_close(ours, FAMILIES["deit"].forward(model, pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", ["blocks", "blocks.0.attn.attn_drop"])
def test_hooks_that_could_never_run_are_refused(path: str) -> None:
    model = FAMILIES["deit"].build().eval()
    model.get_submodule(path).register_forward_pre_hook(lambda *args: None)
    refused(model, path, "where they run")


@pytest.mark.parametrize("path", ["blocks.1", "blocks.1.attn"])
def test_backward_hooks_are_refused(path: str) -> None:
    model = FAMILIES["deit"].build().eval()
    model.get_submodule(path).register_full_backward_hook(lambda *args: None)
    refused(model, path, "backward hooks", "register_hook")


def test_hooks_that_outlive_an_exception_are_refused() -> None:
    model = FAMILIES["deit"].build().eval()
    model.get_submodule("blocks.1").register_forward_hook(lambda *args: None, always_call=True)
    refused(model, "blocks.1", "always_call")


@pytest.mark.parametrize(
    "hook",
    [
        lambda module, args, kwargs: ((args[0][:, :-1],), kwargs),
        lambda module, args, kwargs: ((*args, None), kwargs),
        lambda module, args, kwargs: (args, kwargs | {"attn_mask": torch.zeros(1)}),
        lambda module, args, kwargs: (args, {}),
        lambda module, args, kwargs: ((), kwargs | {"x": args[0]}),
    ],
)
def test_a_hook_whose_change_cannot_be_followed_is_refused(hook: Any) -> None:
    model = FAMILIES["deit"].build().eval()
    model.get_submodule("blocks.1.attn").register_forward_pre_hook(hook, with_kwargs=True)
    refused(model, "blocks.1.attn", "changes")


@pytest.mark.parametrize("output", [None, torch.zeros(1, 3, 32), "nothing"])
def test_a_hook_that_returns_other_tokens_is_refused(output: object) -> None:
    model = FAMILIES["deit"].build().eval()
    model.get_submodule("blocks.1").register_forward_hook(lambda *args: output)
    if output is None:
        tosa_encode(model, torch.zeros(1, 3, 48, 48), MergeSpec())
    else:
        refused(model, "blocks.1", "shape of its output")


def test_a_hook_that_came_after_the_adapter_is_seen() -> None:
    model, pixels = FAMILIES["deit"].build().eval(), pixels_for("deit")
    adapter = adapt(model)
    plain = tosa_encode(adapter, pixels, MergeSpec()).x
    handle = model.get_submodule("blocks.1").register_forward_hook(after)
    assert not torch.allclose(tosa_encode(adapter, pixels, MergeSpec()).x, plain, atol=1e-3)
    handle.remove()
    setattr(model.get_submodule("blocks.1"), "forward", None)  # noqa: B010
    with pytest.raises(VlmError):
        tosa_encode(adapter, pixels, MergeSpec())


def test_a_layer_of_somebody_else_is_refused() -> None:
    class Mine(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return args[0], None

    model: Any = FAMILIES["hf vit"].build().eval()
    model.layers[1].attention = Mine()
    with pytest.raises(VlmError, match=r"layers\.1\.attention") as error:
        adapt(model)
    assert error.value.code == "unsupported_tower"


@pytest.mark.long
@pytest.mark.parametrize("name", ["hf beit", "deit", "siglip"])
@torch.inference_mode()
def test_hooks_compile_into_the_one_graph(name: str) -> None:
    """Those of transformers too, which it leaves on a model that was asked for hidden states."""
    torch.compiler.reset()
    with torch.inference_mode(False), torch.no_grad():
        model = FAMILIES[name].build().eval()
        if name != "deit":
            model(pixels_for(name), output_hidden_states=True)
    adapter, pixels = adapt(model), pixels_for(name)
    plan = make_plan(HALF, adapter.shape)
    plain = encode(adapter, pixels, plan).x
    layers_of(model)[1].register_forward_hook(after)

    def run(pixels: Tensor) -> Tensor:
        return encode(adapter, pixels, plan).x

    compiled = torch.compile(run, backend="eager", fullgraph=True)(pixels)
    torch.testing.assert_close(compiled, run(pixels), rtol=0, atol=1e-5)
    assert not torch.allclose(compiled, plain, atol=1e-3)
