"""Save a trained stage 3, 4 or 5 as an ordinary Hugging Face checkpoint.

python -m training.export --run runs/stage4 --out vlm/checkpoints/room-tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from transformers import GenerationConfig, LlavaOnevisionImageProcessor

from training.layout import lay_out
from training.loop import saved
from training.model import END, IMAGE, IMAGE_PX, PAD, VIDEO, build_config, build_model, build_tokenizer
from training.walk_words import WALK_WORDS
from vlm import load_vlm
from vlm.checkpoint_files import write_manifest
from vlm.probe import probe, write_probe


def main() -> None:
    args = argparse.ArgumentParser()
    args.add_argument("--run", type=Path, default=Path("runs/stage4"))
    args.add_argument("--out", type=Path, default=Path("vlm/checkpoints/room-tiny"))
    args.add_argument("--walks", action="store_true", help="a run of stage 5, which has more words")
    given = args.parse_args()

    tokenizer = build_tokenizer(WALK_WORDS if given.walks else ())
    config = build_config(tokenizer)
    model = build_model(config, seed=0)
    state = saved(given.run)["parts"]
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    end = tokenizer.vocab[END]
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.vocab[PAD])
    given.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(given.out, max_shard_size="15MB")
    tokenizer.save_pretrained(given.out)
    processor = LlavaOnevisionImageProcessor(
        size={"height": IMAGE_PX, "width": IMAGE_PX},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        image_grid_pinpoints=[[IMAGE_PX, IMAGE_PX]],
        do_pad=False,
    )
    settings = json.loads(processor.to_json_string())
    (given.out / "preprocessor_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    lay_out(given.out, config, IMAGE, VIDEO)
    write_manifest(given.out)  # that of an earlier export lists other weights, which loading refuses
    write_probe(probe(load_vlm(given.out)), given.out)
    write_manifest(given.out)


if __name__ == "__main__":
    main()
