"""Merging behind a model's own call: `patch` a model, and `model(pixels)` merges, until the patch is undone.

For code that calls the model itself, such as evaluation scripts. `vlm.classify` needs no patch.
"""

from __future__ import annotations

from dataclasses import replace
from threading import get_ident
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tosa import MergeSpec, make_plan
from vlm.adapters import adapt
from vlm.adapters.heads import Head, head_of
from vlm.adapters.hooks import MODEL
from vlm.model import VlmError
from vlm.vision import encode


def patch(model: Any, spec: MergeSpec, image_size: tuple[int, int] | None = None) -> Patch:
    """Make `model(pixels)` merge as `spec` says, until `undo()` or the end of a `with` block.

    The model gets one attribute, a `forward` of its own in front of the one of its class; classes are left
    alone. What it returns is what the model returns: logits of timm, an output with `logits` of transformers.
    Hooks of the model itself run as always. image_size: (height, width) in px, for a model built without.
    Raises PlanError, and VlmError: no_head, already_patched, missing_spatial for a method that needs depth.
    """
    if "forward" in vars(model):
        message = f"this {type(model).__name__} has a forward of its own already: undo that first"
        raise VlmError("already_patched", message)
    head, adapter = head_of(model), adapt(model, image_size=image_size)
    if make_plan(spec, adapter.shape).needs_spatial:
        message = f"{spec.method} needs spatial tokens, and a patched model gets images only: use classify"
        raise VlmError("missing_spatial", message)
    return Patch(model, spec, head)


class Patch:
    """A patched model: `undo` takes the patch off, as the end of a `with` block does.

    Only the thread that patched may call the model meanwhile: it would merge behind the back of others,
    which get VlmError (patched_elsewhere). They use `vlm.classify`, or a copy of the model.
    """

    def __init__(self, model: Any, spec: MergeSpec, head: Head) -> None:
        self.model, self.spec, self._head, self._thread = model, spec, head, get_ident()
        self._forward = self._merging_forward
        model.forward = self._forward

    def undo(self) -> None:
        """Make the model as it was. Does nothing the second time; raises VlmError if it was patched over."""
        current = vars(self.model).get("forward")
        if current is None:
            return
        if current is not self._forward:
            raise VlmError("already_patched", "the model's forward was replaced since: undo that first")
        del self.model.forward

    def __enter__(self) -> Patch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def _merging_forward(self, pixel_values: Tensor, **others: Any) -> Any:
        """Stand in for the model's forward. Raises VlmError for arguments beside images that say anything."""
        if not torch.compiler.is_compiling() and get_ident() != self._thread:
            message = "this model is patched by another thread: undo it there, or use classify or a copy"
            raise VlmError("patched_elsewhere", message)
        given = [name for name, value in others.items() if not _says_nothing(name, value)]
        if given or not isinstance(pixel_values, Tensor):
            what = ", ".join(given) or type(pixel_values).__name__
            raise VlmError("unsupported_argument", f"a patched model takes images alone, but got {what}")
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        adapter = adapt(self.model, image_size=size)
        # Hooks of the model itself are run by its own call, which is what called this.
        others_passed_by = tuple(each for each in adapter.passed_by if each.name != MODEL)
        adapter = replace(adapter, passed_by=others_passed_by)
        tokens = encode(adapter, pixel_values, make_plan(self.spec, adapter.shape))
        return self._head.output(adapter, tokens)


def _says_nothing(name: str, value: object) -> bool:
    return value is None or value is (name == "return_dict")
