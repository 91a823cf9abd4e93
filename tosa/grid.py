"""Integer arithmetic of merged grids: rows and columns, with or without attention windows."""

from __future__ import annotations

from itertools import groupby

Grid = tuple[int, int]
AxisWindows = tuple[tuple[int, int], ...]  # (length, removed) of every stretch of an axis, in order
Regions = tuple[tuple[int, int], ...]  # (number, tokens of each) of every size of window, whole ones first


def divide(grid: Grid, cell: Grid) -> Grid:
    """Count the cells of a grid along both axes. Raises ValueError unless they are whole."""
    if min(cell) < 1 or grid[0] % cell[0] or grid[1] % cell[1]:
        raise ValueError(f"{grid[0]} x {grid[1]} patches are no whole cells of {cell[0]} x {cell[1]}")
    return grid[0] // cell[0], grid[1] // cell[1]


def unit(grid: Grid, window: Grid | None) -> Grid:
    """Return what one step shrinks: the window, clipped to the grid, or the grid if there is no window."""
    return grid if window is None else (min(grid[0], window[0]), min(grid[1], window[1]))


def axis_windows(length: int, window: int | None, removed: int) -> AxisWindows:
    """Split an axis into its windows, and compute how much each one loses.

    A whole window loses `removed`; the partial one at the end its share, rounded down, which is as much as it
    must lose to fit the smaller window and never more than half when `removed` is not. Without a window,
    or with one as long as the axis, the whole axis is one stretch.
    """
    window = length if window is None else min(window, length)
    whole, rest = divmod(length, window)
    partial = ((rest, rest * removed // window),) if rest else ()
    return ((window, removed),) * whole + partial


def grid_windows(grid: Grid, window: Grid | None, r_hw: Grid) -> tuple[AxisWindows, AxisWindows]:
    """Split both axes: the stretches of rows and those of columns."""
    sizes = (None, None) if window is None else window
    return axis_windows(grid[0], sizes[0], r_hw[0]), axis_windows(grid[1], sizes[1], r_hw[1])


def remaining(windows: AxisWindows) -> int:
    """Count the rows or columns that an axis keeps."""
    return sum(length - removed for length, removed in windows)


def shrink(grid: Grid, window: Grid | None, r_hw: Grid) -> tuple[Grid, Grid | None]:
    """Return the grid and the window after each window (or the grid) lost r_hw = (rows, columns).

    A window larger than the grid becomes what is left of the grid.
    """
    if r_hw == (0, 0):
        return grid, window
    rows, columns = grid_windows(grid, window, r_hw)
    height, width = unit(grid, window)
    smaller = None if window is None else (height - r_hw[0], width - r_hw[1])
    return (remaining(rows), remaining(columns)), smaller


def nearest_grid(grid: Grid, window: Grid | None, target: int, least: Grid) -> Grid:
    """Find the size of a window (or of the grid) for which the tokens come nearest to `target`.

    Rows and columns keep the same share, to within one row or column of the shorter side; each stays at
    least `least`. Of equally near sizes the one with the most equal shares.
    """
    height, width = unit(grid, window)
    tolerance = 1 / min(height, width) + 1e-9

    def misses(size: Grid) -> tuple[int, float, Grid]:
        (h, w), _ = shrink(grid, window, (height - size[0], width - size[1]))
        return abs(h * w - target), abs(size[0] / height - size[1] / width), size

    best = None
    for rows in range(least[0], height + 1):
        for columns in range(least[1], width + 1):
            if abs(rows / height - columns / width) <= tolerance:
                found = misses((rows, columns))
                best = found if best is None or found < best else best
    assert best is not None
    return best[2]


def regions(grid: Grid, window: Grid) -> Regions:
    """Group the windows of a grid by size: whole ones, those cut at the right, at the bottom, at both."""
    rows, columns = (_kinds(axis) for axis in grid_windows(grid, window, (0, 0)))
    return tuple((down * across, height * width) for down, height in rows for across, width in columns)


def shrink_regions(entry: Regions, kept: int) -> Regions:
    """Leave `kept` tokens of each whole window, and of a smaller one the same share, rounded up.

    entry: before any merging. So it does not matter in how many steps tokens go, and where a whole window
    loses half at most, no other loses more.
    """
    whole = entry[0][1]
    return tuple((number, -(-tokens * kept // whole)) for number, tokens in entry)


def tokens_in(windows: Regions) -> int:
    """Count the tokens of all windows."""
    return sum(number * tokens for number, tokens in windows)


def _kinds(axis: AxisWindows) -> list[tuple[int, int]]:
    return [(len(list(equal)), length) for (length, _), equal in groupby(axis)]
