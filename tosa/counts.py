"""Token counts of every layer, from one of the three budgets: keep_ratio, r, r_hw.

Counts depend only on the shape of the encoder and on what the method declares. A token is a cell here, where
the encoder's patches merge in cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, pairwise

from tosa.grid import Grid, Regions, nearest_grid, regions, shrink, shrink_regions, tokens_in, unit
from tosa.methods.method import MergeMethod
from tosa.schedule import inflection, paper_schedule, removal_weights
from tosa.shape import EncoderShape
from tosa.spec import MergeSpec, PlanError, shown


@dataclass(frozen=True)
class LayerCounts:
    """Patch tokens at the entry of layer 0..L-1 and at the end; for methods that keep a grid, also the grid
    and the attention window there, and what each layer takes (of each window, where there are windows).

    For other methods on windows, what each layer takes of a whole window (r), and the windows that are left.
    """

    tokens: tuple[int, ...]
    grids: tuple[Grid, ...] | None = None
    windows: tuple[Grid | None, ...] | None = None
    r_hw: tuple[Grid, ...] | None = None
    r: tuple[int, ...] | None = None
    regions: tuple[Regions, ...] | None = None


def count_tokens(spec: MergeSpec, shape: EncoderShape, method: MergeMethod) -> LayerCounts:
    """Spread the removals of a request over the layers. Raises PlanError."""
    if not method.merges:
        _refuse_removal(spec)
        return _on_grids(shape, [unit(shape.cells, shape.cell_window)] * (shape.num_layers + 1))
    _check_budget(spec, method)
    return _grid_counts(spec, shape, method) if method.keeps_grid else _free_counts(spec, shape, method)


def _refuse_removal(spec: MergeSpec) -> None:
    for field in ("r", "r_hw", "keep_ratio", "layers"):
        value = getattr(spec, field)
        if value is not None and (field != "keep_ratio" or value != 1.0):
            raise PlanError("nothing_to_remove", field, f"{spec.method} removes nothing: leave {field} out.")


def _check_budget(spec: MergeSpec, method: MergeMethod) -> None:
    wrong, right = ("r", "r_hw") if method.keeps_grid else ("r_hw", "r")
    if getattr(spec, wrong) is not None:
        kind = "keeps a grid" if method.keeps_grid else "keeps no grid"
        message = f"{spec.method} {kind}: give keep_ratio or {right} instead of {wrong}."
        raise PlanError("wrong_budget", wrong, message)
    if (spec.keep_ratio is None) == (getattr(spec, right) is None):
        message = f"{spec.method} needs exactly one of keep_ratio and {right}."
        raise PlanError("one_budget", "keep_ratio", message)
    if spec.keep_ratio is not None and not 0.0 < spec.keep_ratio <= 1.0:
        message = f"keep_ratio must be above 0 and at most 1, got {shown(spec.keep_ratio)}."
        raise PlanError("bad_keep_ratio", "keep_ratio", message, limit=0 if spec.keep_ratio <= 0 else 1)


def _target(keep_ratio: float, patches: int) -> int:
    return max(1, round(keep_ratio * patches))


# Free-form methods: any number of tokens.


def _free_counts(spec: MergeSpec, shape: EncoderShape, method: MergeMethod) -> LayerCounts:
    curve = inflection(spec.schedule)
    if shape.cell_window is None:
        return LayerCounts(_counts_of(spec, shape, method, shape.num_cells, curve))
    first = regions(shape.cells, shape.cell_window)
    counts = _counts_of(spec, shape, method, first, curve)
    r = tuple(before - after for before, after in pairwise(counts))
    windows = tuple(shrink_regions(first, kept) for kept in counts)
    return LayerCounts(tuple(map(tokens_in, windows)), r=r, regions=windows)


def _counts_of(
    spec: MergeSpec, shape: EncoderShape, method: MergeMethod, tokens: int | Regions, curve: float
) -> tuple[int, ...]:
    """Count the tokens at every layer: all of them or, of windows, those of a whole one."""
    start = tokens if isinstance(tokens, int) else tokens[0][1]
    if spec.keep_ratio is None:
        return _take_r(spec, shape, method, curve, start)
    target = _target(spec.keep_ratio, shape.num_cells)
    most = len(_layers(spec, shape, method, shape.num_layers))
    least = _least(start, most, method)
    fewest = least if isinstance(tokens, int) else tokens_in(shrink_regions(tokens, least))
    if target < fewest:
        raise _too_small(spec, shape, fewest, most)
    aim = target if isinstance(tokens, int) else _nearest_window(tokens, target, least)
    layers = _layers(spec, shape, method, _steps_needed(start, aim, method))
    return _follow_schedule(start, aim, _weights(layers, shape, curve), method)


def _nearest_window(windows: Regions, target: int, least: int) -> int:
    """Find how many tokens a whole window keeps for all of them to come nearest to `target`."""
    whole = windows[0][1]

    def misses(kept: int) -> int:
        return abs(tokens_in(shrink_regions(windows, kept)) - target)

    return min(range(least, whole + 1), key=misses)


def _take_r(
    spec: MergeSpec, shape: EncoderShape, method: MergeMethod, curve: float, start: int
) -> tuple[int, ...]:
    """Remove the requested r at each of the layers, at most what the method can."""
    assert spec.r is not None
    steps = 1 if isinstance(spec.r, int) else len(spec.r)
    layers = _layers(spec, shape, method, steps)
    removals = dict(zip(layers, _removals(spec.r, len(layers), curve), strict=True))
    counts = [start]
    for layer in range(shape.num_layers):
        counts.append(max(counts[-1] - removals.get(layer, 0), _least(counts[-1], 1, method)))
    return tuple(counts)


def _removals(r: int | tuple[int, ...], num_layers: int, curve: float) -> tuple[int, ...]:
    if min((r,) if isinstance(r, int) else r, default=0) < 0:
        raise PlanError("bad_r", "r", f"r must be at least 0, got {shown(r)}.", limit=0)
    if not isinstance(r, int) and len(r) > num_layers:
        message = f"r has {len(r)} values, but only {num_layers} layers may merge."
        raise PlanError("bad_r", "r", message, limit=num_layers)
    if not isinstance(r, int) and curve != 0.0:
        raise PlanError("bad_schedule", "schedule", "a list of r is its own schedule: leave schedule out.")
    return paper_schedule(r, num_layers, curve)


# Methods that keep a grid: rows and columns, of each window where there are windows.


def _grid_counts(spec: MergeSpec, shape: EncoderShape, method: MergeMethod) -> LayerCounts:
    curve = inflection(spec.schedule)
    if spec.keep_ratio is None:
        return _on_grids(shape, _take_r_hw(spec, shape, method))
    grid, window, target = shape.cells, shape.cell_window, _target(spec.keep_ratio, shape.num_cells)
    whole, most = unit(grid, window), len(_layers(spec, shape, method, shape.num_layers))
    least = _least(whole[0], most, method), _least(whole[1], most, method)
    (height, width), _ = shrink(grid, window, (whole[0] - least[0], whole[1] - least[1]))
    if target < height * width:
        raise _too_small(spec, shape, height * width, most)
    aim = nearest_grid(grid, window, target, least)
    layers = _layers(spec, shape, method, max(map(_steps_needed, whole, aim, (method, method))))
    weights = _weights(layers, shape, curve)
    rows, columns = (
        _follow_schedule(side, end, weights, method) for side, end in zip(whole, aim, strict=True)
    )
    return _on_grids(shape, list(zip(rows, columns, strict=True)))


def _take_r_hw(spec: MergeSpec, shape: EncoderShape, method: MergeMethod) -> list[Grid]:
    """Take the same rows and columns at each of the layers."""
    assert spec.r_hw is not None
    if len(spec.r_hw) != 2 or min(spec.r_hw) < 0:
        message = f"r_hw must be (rows, columns), each at least 0, got {shown(spec.r_hw)}."
        raise PlanError("bad_r_hw", "r_hw", message, limit=0)
    if inflection(spec.schedule) != 0.0:
        message = "r_hw is the same at each of the layers: leave schedule out."
        raise PlanError("bad_schedule", "schedule", message)
    layers = _layers(spec, shape, method, steps=1)
    sizes = [unit(shape.cells, shape.cell_window)]
    for layer in range(shape.num_layers):
        (height, width), (rows, columns) = sizes[-1], spec.r_hw if layer in layers else (0, 0)
        most = height - _least(height, 1, method), width - _least(width, 1, method)
        if rows > most[0] or columns > most[1]:
            message = f"r_hw {spec.r_hw} is too much: layer {layer} can remove {most} at most."
            raise PlanError("bad_r_hw", "r_hw", message, limit=most[0] if rows > most[0] else most[1])
        sizes.append((height - rows, width - columns))
    return sizes


def _on_grids(shape: EncoderShape, sizes: list[Grid]) -> LayerCounts:
    """Turn the sizes of a window (or the grid) at every layer into grids and counts.

    Where several steps shorten a partial window, rounding may leave it a row or column longer than one step
    would have.
    """
    grids, windows, taken = [shape.cells], [shape.cell_window], []
    for before, after in pairwise(sizes):
        taken.append((before[0] - after[0], before[1] - after[1]))
        grid, window = shrink(grids[-1], windows[-1], taken[-1])
        grids.append(grid)
        windows.append(window)
    return LayerCounts(tuple(h * w for h, w in grids), tuple(grids), tuple(windows), tuple(taken))


# Which layers, and how much at each.


def _layers(spec: MergeSpec, shape: EncoderShape, method: MergeMethod, steps: int) -> tuple[int, ...]:
    """Return the layers that may merge, in order; `steps` is how many a method of "one" layer needs."""
    num_layers = shape.num_layers
    if spec.layers is not None:
        return _checked_layers(spec.layers, num_layers)
    if method.layers == "first_half":
        return tuple(range(max(1, num_layers // 2)))
    if method.layers == "one":
        first = max(0, min(method.first_layer, num_layers - steps))
        return tuple(range(first, min(first + steps, num_layers)))
    return tuple(range(num_layers))


def _checked_layers(layers: tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(num_layers)):
        message = f"layers must be different numbers from 0 to {num_layers - 1}, got {shown(layers)}."
        raise PlanError("bad_layers", "layers", message, limit=num_layers - 1)
    return tuple(sorted(layers))


def _weights(layers: tuple[int, ...], shape: EncoderShape, curve: float) -> tuple[float | None, ...]:
    """Return every layer's share of all removals, None where it may not merge."""
    shares = dict(zip(layers, removal_weights(len(layers), curve), strict=True))
    return tuple(shares.get(layer) for layer in range(shape.num_layers))


def _follow_schedule(
    start: int, target: int, weights: tuple[float | None, ...], method: MergeMethod
) -> tuple[int, ...]:
    """Follow the schedule's ideal curve as closely as the method can, ending exactly on the target."""
    counts, share = [start], 0.0
    left = sum(weight is not None for weight in weights)
    for weight in weights:
        now = counts[-1]
        if weight is not None:
            left, share = left - 1, share + weight
            ideal = target if left == 0 else start - round((start - target) * share)
            most = (
                min(now, target * 2**left) if method.halves else now
            )  # above it, the target is out of reach
            now = min(max(ideal, _least(now, 1, method)), most)
        counts.append(now)
    return tuple(counts)


def _least(start: int, steps: int, method: MergeMethod) -> int:
    """Return the fewest tokens (or rows, or columns) that remain after so many steps."""
    return -(-start // 2**steps) if method.halves else min(start, 1 if steps else start)


def _steps_needed(start: int, target: int, method: MergeMethod) -> int:
    """Count the steps that bring start down to target, at least one."""
    return next(steps for steps in count(1) if _least(start, steps, method) <= target)


def _too_small(spec: MergeSpec, shape: EncoderShape, least: int, layers: int) -> PlanError:
    """Name the smallest keep_ratio of four decimals that asks for no fewer than `least` tokens."""
    assert spec.keep_ratio is not None
    patches = shape.num_cells
    what = "tokens" if shape.cell == (1, 1) else f"cells of {shape.cell[0]} x {shape.cell[1]} patches"
    candidates = (number / 1e4 for number in count(int((least - 1) / patches * 1e4)))
    smallest = next(keep for keep in candidates if _target(keep, patches) >= least)
    target = _target(spec.keep_ratio, patches)
    steps = "1 layer" if layers == 1 else f"{layers} layers"
    message = (
        f"keep_ratio {spec.keep_ratio} leaves {target} of {patches} {what}, but {spec.method} in "
        f"{steps} leaves {least} or more: the smallest possible keep_ratio is {smallest}."
    )
    return PlanError("keep_ratio_too_small", "keep_ratio", message, limit=smallest)
