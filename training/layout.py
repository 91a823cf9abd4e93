"""The layout of the published LLaVA-OneVision checkpoints, by which AutoProcessor and vLLM find everything.

transformers 5 writes the tower without the level `vision_model`, and no settings of a processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vlm.checkpoint_files.formats import INDEX, WEIGHT_FILES

TOWER, LEVEL = "vision_tower.", "vision_model."


def lay_out(folder: Path, config: Any, image_token: str, video_token: str) -> None:
    """Give a saved checkpoint the names and files of the published ones; its weights stay the same."""
    for shard in sorted(folder.glob(WEIGHT_FILES)):
        _rename_weights(shard)
    index = folder / INDEX
    if index.is_file():
        listed = json.loads(index.read_text())
        listed["weight_map"] = {published(name): file for name, file in listed["weight_map"].items()}
        index.write_text(json.dumps(listed, indent=2, sort_keys=True) + "\n")
    side = config.vision_config.image_size // config.vision_config.patch_size
    settings = {
        "image_token": image_token,
        "num_image_tokens": side**2,
        "processor_class": "LlavaOnevisionProcessor",
        "video_token": video_token,
        "vision_aspect_ratio": config.vision_aspect_ratio,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }
    (folder / "processor_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def published(name: str) -> str:
    """Return the name of a weight in the published checkpoints."""
    before, tower, rest = name.partition(TOWER)
    return f"{before}{tower}{LEVEL}{rest}" if tower and not rest.startswith(LEVEL) else name


def _rename_weights(shard: Path) -> None:
    with safe_open(shard, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(shard)
    mode = shard.stat().st_mode
    save_file({published(name): weight for name, weight in weights.items()}, shard, metadata)
    shard.chmod(mode)  # that of the new file lets only its owner read it
