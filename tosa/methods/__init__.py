"""Every merging method by name. A new one is one file here and one name below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tosa.methods.adaptiv import ADAPTIV
from tosa.methods.cubist import CUBIST
from tosa.methods.expedite import EXPEDITE
from tosa.methods.method import MergeMethod
from tosa.methods.none import NONE
from tosa.methods.pitome import PITOME
from tosa.methods.pool import POOL
from tosa.methods.random_drop import RANDOM
from tosa.methods.saint import SAINT
from tosa.methods.tofu import TOFU
from tosa.methods.tome import TOME
from tosa.methods.tosa import TOSA
from tosa.methods.vomix import VOMIX

METHODS: Mapping[str, MergeMethod] = MappingProxyType(
    {
        method.name: method
        for method in (NONE, TOME, TOSA, TOFU, PITOME, SAINT, ADAPTIV, VOMIX, CUBIST, EXPEDITE, POOL, RANDOM)
    }
)

__all__ = ["METHODS", "MergeMethod"]
