"""Why the weights of a folder cannot be read, and what to do: from the names and first bytes of files."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

WEIGHT_FILES = "*.safetensors"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
GGUF, PICKLES = (".gguf",), (".bin", ".pt", ".pth", ".ckpt")
LFS_BEGINS = b"version https://git-lfs"
CONVERT = "model = AutoModelForImageTextToText.from_pretrained(folder); model.save_pretrained(folder)"


def no_weights(names: Collection[str]) -> str | None:
    """Say why a folder with files of these names has no weights that are read; None if it has some.

    The sentence continues one that begins with the name of the checkpoint.
    """
    if any(name.endswith(".safetensors") for name in names):
        return None
    if found := _of(names, GGUF):
        return (
            f"has GGUF weights ({found}), which are for llama.cpp: name the checkpoint with .safetensors "
            "weights that they were made from"
        )
    pickles = "pickle files (.bin, .pt, .pth) are never loaded"
    if found := _of(names, PICKLES):
        return (
            f"has no .safetensors weights, only {found}; {pickles}, as reading one can run code. Where you "
            f"trust it, convert it once with transformers: {CONVERT}"
        )
    return f"has no .safetensors weights; {pickles}"


def no_config(folder: Path) -> str:
    """Say what to do about a folder without config.json."""
    inside = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/config.json"))
    inside += sorted(str(path.parent.relative_to(folder)) for path in folder.glob("snapshots/*/config.json"))
    if inside:
        return f"config.json is missing; the folder {inside[0]} in it has one: name that"
    return "config.json is missing: name a folder in Hugging Face format, as save_pretrained writes it"


def damaged_weights(folder: Path, whole: str = WHOLE) -> str | None:
    """Say what is wrong with the weights of a folder, None if nothing is seen without reading them."""
    for path in sorted(folder.glob(WEIGHT_FILES)):
        with path.open("rb") as file:
            if file.read(len(LFS_BEGINS)) == LFS_BEGINS:
                return f"{path.name} is a pointer of Git LFS and not the weights: run git lfs pull"
    if (folder / INDEX).is_file():
        missing = sorted(name for name in _shards(folder) if not (folder / name).is_file())
        if missing:
            return f"{len(missing)} of the files that {INDEX} lists are missing, {missing[0]} among them"
    elif not (folder / whole).is_file():
        found = next(folder.glob(WEIGHT_FILES)).name
        return f"its weights are {found}, and neither {whole} nor {INDEX} is there: rename or index them"
    return None


def _shards(folder: Path) -> set[str]:
    try:
        return set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()  # transformers says what is wrong with it


def _of(names: Collection[str], endings: tuple[str, ...]) -> str | None:
    return next((name for name in sorted(names) if name.endswith(endings)), None)
