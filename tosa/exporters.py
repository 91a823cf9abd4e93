"""Which exporters may trace a merge."""

from __future__ import annotations

import torch
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]


class UnsupportedExporter(RuntimeError):
    """The exporter that is running would write a graph with other numbers. `code` is unsupported_exporter."""

    code = "unsupported_exporter"


def require_exporter() -> None:
    """Raise UnsupportedExporter in the exporter to ONNX by TorchScript, which loses writes into tensors."""
    if is_tracing() and torch.onnx.is_in_onnx_export():
        message = "torch.onnx.export(dynamo=False) cannot export merging: use dynamo=True, the default"
        raise UnsupportedExporter(message)
