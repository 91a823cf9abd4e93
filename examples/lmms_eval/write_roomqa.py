"""Write questions of RoomQA's frozen test split, test.jsonl and the frames, where roomqa.yaml expects them.

python -m examples.lmms_eval.write_roomqa --questions 100
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from PIL import Image

from evals.rooms.splits import TEST, examples

OUT = Path("runs/lmms_eval/roomqa")


def write(out: Path, questions: int) -> int:
    """Write test.jsonl, one question a line, and a PNG per frame; return how many frames."""
    out.mkdir(parents=True, exist_ok=True)
    rows, frames = [], 0
    for example in examples(TEST, questions):
        frames += 1
        image = (out / f"{example.scene.seed}.png").resolve()
        Image.fromarray(example.frame.rgb).save(image)
        for question in example.questions:
            rows.append(json.dumps({"image": str(image), **asdict(question)}))
    (out / "test.jsonl").write_text("\n".join(rows) + "\n")
    return frames


@click.command(context_settings={"show_default": True})
@click.option("--questions", type=click.IntRange(min=1), default=100, help="How many questions.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, help="Folder to write to.")
def main(questions: int, out: Path) -> None:
    """Write RoomQA's test split for lmms-eval."""
    frames = write(out, questions)
    click.echo(f"wrote {questions} questions about {frames} frames to {out}")


if __name__ == "__main__":
    main()
