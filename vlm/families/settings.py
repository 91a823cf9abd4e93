"""How a checkpoint says that images become square views: preprocessor_config.json, or processor_config.json.

transformers 5 writes only the latter, with the image processor nested in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from vlm.checkpoint_files import three
from vlm.families.layout import Size
from vlm.model import ImageSettings

FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def read_settings(folder: Path, view_px: Size) -> ImageSettings:
    """Read the settings of a square view. Raises ValueError and KeyError for impossible or missing ones."""
    raw = processor_json(folder)
    size = raw.get("size", {})
    if not isinstance(size, dict) or any(side != view_px[0] for side in size.values()):
        raise ValueError(f"the image processor says size {size} for a tower of {view_px[0]} px")
    normalizes, rescales = raw.get("do_normalize", True), raw.get("do_rescale", True)
    return ImageSettings(
        size_px=view_px[0],
        mean=three(raw["image_mean"] if normalizes else 0.0),
        std=three(raw["image_std"] if normalizes else 1.0),
        rescale=float(raw.get("rescale_factor", 1 / 255)) if rescales else 1.0,
        resample=int(raw["resample"]),
    )


def written_settings(folder: Path) -> str:
    """Return the files that say how views are made, one after the other with their names."""
    found = {name: folder / name for name in FILES}
    texts = {name: path.read_text(encoding="utf-8") for name, path in found.items() if path.is_file()}
    return json.dumps(texts)


def has_video_processor(folder: Path) -> bool:
    """Say whether transformers finds a video processor, which it also makes of preprocessor_config.json."""
    alone = ("video_preprocessor_config.json", "preprocessor_config.json")
    return bool(processor_json(folder, "video")) or any((folder / name).is_file() for name in alone)


def processor_json(folder: Path, kind: Literal["image", "video"] = "image") -> dict[str, Any]:
    """Return what the checkpoint says of its image or video processor; {} if nothing is said of videos."""
    name = "preprocessor_config.json" if kind == "image" else "video_preprocessor_config.json"
    alone, nested = folder / name, folder / "processor_config.json"
    if alone.is_file():
        raw = json.loads(alone.read_text(encoding="utf-8"))
    elif nested.is_file():
        raw = json.loads(nested.read_text(encoding="utf-8")).get(f"{kind}_processor")
    else:
        raw = None
    if kind == "video" and raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ValueError(f"{name} is missing, or not a JSON object")
    return raw
