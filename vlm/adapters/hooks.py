"""Hooks on modules whose own forward the encoder loop replaces: forward hooks run, the rest is refused.

The loop calls most modules of a model, and torch runs their hooks. It does not call the layers, nor their
attention: `call` runs the hooks of these. Modules that it passes by altogether may carry nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from operator import is_
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from vlm.model import VlmError

# Hooks that transformers leaves once hidden states were asked for: they do something only inside its own
# forward, and those of 5.17 cannot be compiled.
_CAPTURES = "transformers.utils.output_capturing"
MODEL = "the model"  # the name of the whole one in messages
_Extra = TypeVar("_Extra")
# The hooks of all modules: torch fills these tables, and never replaces them.
_BEFORE = torch_module._global_forward_pre_hooks
_AFTER = torch_module._global_forward_hooks
_AFTER_WITH_KWARGS = torch_module._global_forward_hooks_with_kwargs
_BACKWARD = torch_module._global_backward_hooks
_BEFORE_BACKWARD = torch_module._global_backward_pre_hooks


def _same(output: Any) -> Any:
    return output


@dataclass(frozen=True)
class Replaced:
    """Name a module whose forward the loop replaces, and its call: module(x, *rest, **kwargs).

    keyword: the name that x is passed under, None where it comes first. wrap and unwrap turn x into what the
    module returns, and back. on_grid: x is [B, rows, columns, C] there. Positions and masks that the loop
    computes itself are not among the arguments that a hook sees.
    """

    module: nn.Module
    name: str
    rest: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    keyword: str | None = None
    wrap: Callable[[Tensor], Any] = _same
    unwrap: Callable[[Any], Any] = _same
    on_grid: bool = False
    methods: tuple[str, ...] = ("forward",)

    def arguments(self, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the library calls the module with."""
        if self.keyword is None:
            return (x, *self.rest), dict(self.kwargs)
        return self.rest, {self.keyword: x, **self.kwargs}

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], x: Tensor) -> Tensor:
        """Take x out of the arguments as hooks left them; everything else must be as it was."""
        others = dict(kwargs)
        if self.keyword is None:
            given, rest = args[0] if args else None, args[1:]
        else:
            given, rest = others.pop(self.keyword, None), args
        untouched = (
            len(rest) == len(self.rest)
            and all(map(is_, rest, self.rest))
            and others.keys() == self.kwargs.keys()
            and all(others[key] is value for key, value in self.kwargs.items())
        )
        if not untouched or not isinstance(given, Tensor) or given.shape != x.shape:
            raise _refused(self.name, "a hook that changes other arguments or the shape of its tokens")
        return given


@dataclass(frozen=True)
class PassedBy:
    """Name a module that the loop never calls, and the methods of it that the loop replaces."""

    module: nn.Module
    name: str
    methods: tuple[str, ...] = ("forward",)


def call(
    site: Replaced, forward: Callable[[Tensor], tuple[Tensor, _Extra]], x: Tensor
) -> tuple[Tensor, _Extra]:
    """Run forward(x) -> (output, anything else) instead of the module's own, with its forward hooks.

    Raises VlmError (unsupported_hook) for a patched forward, for backward hooks, and for a hook that
    changes other arguments, or the shape of the tokens.
    """
    module = site.module
    require_own_methods(site)
    if module._backward_hooks or module._backward_pre_hooks or _BACKWARD or _BEFORE_BACKWARD:
        raise _refused(
            site.name, "backward hooks", "use a forward hook, and register_hook of the tensor it gets"
        )
    if not (module._forward_hooks or module._forward_pre_hooks or _BEFORE or _AFTER):
        return forward(x)
    return _between_hooks(site, forward, x)


def require_untouched(passed_by: Iterable[PassedBy]) -> None:
    """Refuse hooks and patches on modules that the loop never calls. Raises VlmError (unsupported_hook)."""
    for each in passed_by:
        module = each.module
        require_own_methods(each)
        if (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
        ):
            remedy = "remove them, or register them on a layer, its attention or its MLP, where they run"
            raise _refused(each.name, "hooks", remedy)


def _between_hooks(
    site: Replaced, forward: Callable[[Tensor], tuple[Tensor, _Extra]], x: Tensor
) -> tuple[Tensor, _Extra]:
    module = site.module
    if module._forward_hooks_always_called:
        remedy = "register them without always_call"
        raise _refused(site.name, "hooks that are to run after an exception too", remedy)
    args, kwargs = site.arguments(x)
    for key, hook in chain(_BEFORE.items(), module._forward_pre_hooks.items()):
        if key in module._forward_pre_hooks_with_kwargs:
            changed = hook(module, args, kwargs)
            args, kwargs = (args, kwargs) if changed is None else changed
        else:
            changed = hook(module, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
    output, extra = forward(site.read(args, kwargs, x))
    result = site.wrap(output)
    for key, hook in chain(_AFTER.items(), module._forward_hooks.items()):
        if getattr(hook, "__module__", None) == _CAPTURES:
            continue
        if key in module._forward_hooks_with_kwargs or key in _AFTER_WITH_KWARGS:
            changed = hook(module, args, kwargs, result)
        else:
            changed = hook(module, args, result)
        result = result if changed is None else changed
    left = site.unwrap(result)
    if not isinstance(left, Tensor) or left.shape != output.shape:
        raise _refused(site.name, "a hook that changes the shape of its output")
    return left, extra


def require_own_methods(each: PassedBy | Replaced) -> None:
    """Refuse methods that were set on an instance. Raises VlmError (unsupported_hook)."""
    name = each.name
    for method in each.methods:
        if method in each.module.__dict__:
            remedy = f"undo what patched it, or delete it (del {'model' if name == MODEL else name}.{method})"
            raise _refused(name, f"a {method} of its own, set on the instance", remedy)


def _refused(name: str, what: str, remedy: str = "change x or the output instead, or remove it") -> VlmError:
    message = f"{name} carries {what}, which merging would ignore: {remedy}"
    return VlmError("unsupported_hook", message)
