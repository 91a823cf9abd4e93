"""Every merging method by name. A new one is one file here and one name below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tosa.methods.method import MergeMethod
from tosa.methods.none import NONE
from tosa.methods.tome import TOME
from tosa.methods.tosa import TOSA

METHODS: Mapping[str, MergeMethod] = MappingProxyType({m.name: m for m in (NONE, TOME, TOSA)})

__all__ = ["METHODS", "MergeMethod"]
