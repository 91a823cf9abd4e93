"""Save a trained depth stage as an ordinary Hugging Face checkpoint: float16 on disk, float32 when loaded.

python -m training.export_depth --run runs/depth --out depth/checkpoints/room-depth-tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from training.depth_model import build_model, build_processor
from training.loop import saved
from vlm.checkpoint_files import write_manifest


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--run", type=Path, default=Path("runs/depth"))
    args.add_argument("--out", type=Path, default=Path("depth/checkpoints/room-depth-tiny"))
    given = args.parse_args()
    export(given.run, given.out)


def export(run: Path, out: Path) -> None:
    """Write weights, settings and the manifest; an existing model card stays."""
    model = build_model(seed=0)
    state = saved(run)["parts"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    model.half().save_pretrained(out, max_shard_size="13MB")
    _edit(out / "config.json", dtype="float32")  # the library's default dtype
    build_processor().save_pretrained(out)
    write_manifest(out)


def _edit(file: Path, **changes: str) -> None:
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
