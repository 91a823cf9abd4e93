"""What the vision transformers of transformers share: attention in four projections, how layers are called.

Names of modules and embeddings differ between families; their adapters provide them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from tosa import EncoderShape, Tokens, attention
from vlm.adapters.adapter import Block, Grid, TensorMap, join_heads, split_heads, unsupported, wrong_size
from vlm.adapters.hooks import MODEL, PassedBy, Replaced, call

NO_MASK = MappingProxyType({"attention_mask": None})
# (module, tokens, size or None, x [B, N, C]) -> what attention adds [B, N, C], keys [B, heads, N, head_dim]
Inner = Callable[[Any, Tokens, Tensor | None, Tensor], tuple[Tensor, Tensor]]


def layers_of(model: Any) -> tuple[str, Any]:
    """Return the layers, and the name they have in the model."""
    for path in ("layers", "encoder.layers", "encoder.layer", "model.layer", "blocks"):
        found = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return path, found
    raise unsupported(type(model).__name__, "its layers were not found")


def passed_by(model: Any) -> tuple[PassedBy, ...]:
    """Name what the loop never calls: the model itself, and the encoder that holds its layers."""
    path, layers = layers_of(model)
    holder = path.rpartition(".")[0]
    between = (PassedBy(getattr(model, holder), holder),) if holder else ()
    return (PassedBy(model, MODEL), *between, PassedBy(layers, path))


def clip_blocks(model: Any) -> tuple[Block, ...]:
    """Name the parts of layers as SigLIP and CLIP have them."""
    inner = partial(plain_attention, "out_proj")
    return tuple(
        Block(
            layer.layer_norm1,
            partial(attend, _named_site(layer.self_attn, f"{name}.self_attn"), inner, ()),
            layer.layer_norm2,
            layer.mlp,
            layer_site(layer, name),
        )
        for name, layer in named_layers(model)
    )


def named_layers(model: Any) -> list[tuple[str, Any]]:
    """List the layers with their names."""
    path, layers = layers_of(model)
    return [(f"{path}.{index}", layer) for index, layer in enumerate(layers)]


def layer_site(layer: Any, name: str, rest: tuple[Any, ...] = (None,)) -> Replaced:
    """Name a layer for its hooks; most get a mask that is None."""
    require_own_class(layer, name)
    return Replaced(layer, name, rest)


def attention_site(
    module: Any, name: str, rest: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = MappingProxyType({})
) -> Replaced:
    """Name the attention of a layer for its hooks; it returns its output and, where asked, its weights."""
    require_own_class(module, name)
    return Replaced(module, name, rest, kwargs, wrap=with_no_weights, unwrap=without_weights)


def _named_site(module: Any, name: str) -> Replaced:
    return replace(attention_site(module, name, kwargs=NO_MASK), keyword="hidden_states")


def require_own_class(module: Any, name: str) -> None:
    """Refuse what somebody put in the place of a module of transformers: it may compute anything."""
    if not type(module).__module__.startswith("transformers.models."):
        raise unsupported(name, f"it is {type(module).__module__}.{type(module).__qualname__}")


def with_no_weights(attended: Tensor) -> tuple[Tensor, None]:
    """Return what attention returns when nobody asks for its weights."""
    return attended, None


def without_weights(output: tuple[Tensor, Any]) -> Tensor:
    """Take the output of attention from what it returns."""
    return output[0]


def attend(
    site: Replaced,
    inner: Inner,
    tail: tuple[TensorMap, ...],
    x: Tensor,
    tokens: Tokens,
    size: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the attention of a module as `inner` does, then what the layer has behind it."""
    attended, keys = call(site, partial(inner, site.module, tokens, size), x)
    return branch(tail, attended), keys


def plain_attention(
    out: str, module: Any, tokens: Tokens, size: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Attend without positions; the last projection of the module is called `out`."""
    q, k, v = queries_keys_values(module, x)
    return getattr(module, out)(join_heads(attention(q, k, v, size))), k


def queries_keys_values(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project x [B, N, C] into q, k, v [B, heads, N, D]."""
    heads = module.num_heads if hasattr(module, "num_heads") else module.num_attention_heads
    q, k, v = (split_heads(proj(x), heads) for proj in (module.q_proj, module.k_proj, module.v_proj))
    return q, k, v


def branch(tail: tuple[TensorMap, ...], x: Tensor) -> Tensor:
    """Apply modules one after the other: dropout, LayerScale, stochastic depth."""
    for each in tail:
        x = each(x)
    return x


def shape(model: Any, grid: Grid, num_prefix: int = 0, mlp_size: int | None = None) -> EncoderShape:
    """Describe a model; mlp_size: the width of its MLPs where config.intermediate_size is not it."""
    config = model.config
    return EncoderShape(
        num_layers=len(layers_of(model)[1]),
        grid=grid,
        num_prefix=num_prefix,
        hidden_size=config.hidden_size,
        mlp_size=mlp_size or config.intermediate_size,
        name=type(model).__name__,
    )


def mlp_size(mlp: nn.Module, hidden_size: int) -> int:
    """Return the width of the plain MLP that costs as much: a gated one has two input projections."""
    weights = sum(part.weight.numel() for part in mlp.modules() if isinstance(part, nn.Linear))
    return weights // (2 * hidden_size)


def pair(side: Any) -> Grid:
    """Return (height, width) of a setting that may be one number."""
    return (side, side) if isinstance(side, int) else (side[0], side[1])


def whole_patches(model: Any, image_size: tuple[int, int], patch: Grid) -> Grid:
    """Return the patch grid of images whose positions the library resizes; what is left over is not seen."""
    rows, columns = image_size[0] // patch[0], image_size[1] // patch[1]
    if not rows or not columns:
        raise wrong_size(type(model).__name__, image_size, f"at least {patch[0]} x {patch[1]} px")
    return rows, columns


def require_grid(model: Any, grid: Grid, patch: Grid, pixel_values: Tensor) -> None:
    """Refuse images of another size than the adapter was made for."""
    image_size = (pixel_values.shape[-2], pixel_values.shape[-1])
    if whole_patches(model, image_size, patch) != grid:
        takes = f"{grid[0]} x {grid[1]} patches: adapt the model for this size"
        raise wrong_size(type(model).__name__, image_size, takes)


def require_plain_forward(model: Any, *bases: type[Any]) -> None:
    """Refuse a subclass whose forward differs from that of the class that the loop replaces."""
    if not any(type(model).forward is base.forward for base in bases):
        raise unsupported(type(model).__name__, f"it has its own forward, unlike {bases[0].__name__}")
