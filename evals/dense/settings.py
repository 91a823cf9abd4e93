"""The settings that the dense probe compares, each beside its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tosa import METHODS, MergeSpec


@dataclass(frozen=True)
class Setting:
    """A merge request and a source of depth, one of DEPTHS, for methods that need it."""

    spec: MergeSpec
    depth: str | None = None

    @property
    def name(self) -> str:
        """Return a readable name, unique among the settings of one ratio."""
        if not METHODS[self.spec.method].needs_spatial:
            return self.spec.method
        return f"{self.spec.method} {self.spec.alpha}, {self.depth}"


def settings_at(
    keep_ratio: float, methods: Sequence[str], alphas: Sequence[str | float], depths: Sequence[str]
) -> list[Setting]:
    """List ToMe, the other methods, and ToSA with every alpha and every source of depth."""
    plain = [name for name in dict.fromkeys(("tome", *methods)) if name != "tosa"]
    found = [Setting(MergeSpec(name, keep_ratio=keep_ratio)) for name in plain]
    return found + [
        Setting(MergeSpec("tosa", keep_ratio=keep_ratio, alpha=alpha), depth)
        for alpha in (alphas if "tosa" in methods else ())
        for depth in depths
    ]
