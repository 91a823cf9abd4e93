"""Match depth maps of a folder to images by name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from evals.runners.items import DatasetError

KINDS = (".png", ".npy", ".tif", ".tiff", ".jpg", ".jpeg")
DEPTHS_OPTION = click.Option(
    ["--depths"],
    type=click.Path(path_type=Path),
    help="Folder of depth maps, named like the images; describe them with --depth-*.",
)


def depths_of(images: Collection[Path], folder: Path | None) -> dict[Path, tuple[Path, ...]]:
    """Find the depth map of each image: its name with another ending. Returns none without a folder.

    Raises DatasetError where one is missing, for a score must not mix measured and estimated depth.
    """
    if folder is None:
        return {image: () for image in images}
    there = folder.iterdir() if folder.is_dir() else ()
    maps = {path.stem: path for path in sorted(there) if path.suffix.lower() in KINDS}
    missing = [image for image in images if image.stem not in maps]
    if missing:
        expected = folder / f"{missing[0].stem}.png"
        raise DatasetError(
            f"{len(missing)} of {len(images)} images have no depth map, the first is {expected}"
        )
    return {image: (maps[image.stem],) for image in images}
