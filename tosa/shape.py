"""An encoder as the planner sees it: numbers only, no weights."""

from __future__ import annotations

from dataclasses import dataclass

from tosa.grid import Grid


@dataclass(frozen=True)
class EncoderShape:
    """Describe an encoder: the layers that run, the patch grid (rows, columns), the widths.

    window: (rows, columns) of its attention windows on that grid, None where attention is global;
    global_layers: the layers that ignore the windows. rotary: positions are rotated into queries and keys.
    requires_grid: it cannot run once the grid is gone. name: what error messages call it.
    """

    num_layers: int
    grid: Grid
    num_prefix: int = 0
    hidden_size: int = 0
    mlp_size: int = 0
    name: str = "this encoder"
    window: Grid | None = None
    global_layers: tuple[int, ...] = ()
    rotary: bool = False
    requires_grid: bool = False

    def __post_init__(self) -> None:
        for field in ("grid", "window", "global_layers"):  # lists are not hashable, and equal no tuple
            value = getattr(self, field)
            object.__setattr__(self, field, tuple(value) if isinstance(value, list) else value)

    @property
    def patches(self) -> int:
        """Patch tokens before any merging."""
        return self.grid[0] * self.grid[1]
