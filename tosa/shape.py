"""An encoder as the planner sees it: numbers only, no weights."""

from __future__ import annotations

from dataclasses import dataclass

from tosa.grid import Grid, divide


@dataclass(frozen=True)
class EncoderShape:
    """Describe an encoder: the layers that run, the patch grid (rows, columns), the widths.

    window: (rows, columns) of its attention windows on that grid, None where attention is global;
    global_layers: the layers that ignore the windows. rotary: positions are rotated into queries and keys.
    requires_grid: it cannot run once the grid is gone. name: what error messages call it.
    cell: (rows, columns) of patches that merge as one, slot by slot, because what follows the encoder reads
    them together (a pixel shuffle, a patch merger). The grid and the window are whole cells. Methods then
    see a cell where they see a patch otherwise.
    pads_windows: windows that the grid cuts are filled up, so that they need the grid; where they are simply
    smaller, methods that keep no grid merge inside them.
    Raises ValueError for a grid or a window that is no multiple of the cell.
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
    cell: Grid = (1, 1)
    pads_windows: bool = True

    def __post_init__(self) -> None:
        # Lists are not hashable, and equal no tuple.
        for field in ("grid", "window", "global_layers", "cell"):
            value = getattr(self, field)
            object.__setattr__(self, field, tuple(value) if isinstance(value, list) else value)
        if self.cell != (1, 1):
            divide(self.grid, self.cell)
            if self.window is not None:
                divide(self.window, self.cell)

    @property
    def patches(self) -> int:
        """Patch tokens before any merging."""
        return self.grid[0] * self.grid[1]

    @property
    def slots(self) -> int:
        """Patches of one cell."""
        return self.cell[0] * self.cell[1]

    @property
    def cells(self) -> Grid:
        """The grid in cells: rows and columns."""
        return self.grid if self.cell == (1, 1) else divide(self.grid, self.cell)

    @property
    def cell_window(self) -> Grid | None:
        """The attention window in cells."""
        return self.window if self.window is None or self.cell == (1, 1) else divide(self.window, self.cell)

    @property
    def num_cells(self) -> int:
        """Cells before any merging: what methods count, patch tokens where a cell is one patch."""
        rows, columns = self.cells
        return rows * columns
