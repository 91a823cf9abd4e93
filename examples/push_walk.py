"""Push a recorded walk to a running service frame by frame, and ask about it.

tosa-vqa serve; python examples/push_walk.py RECORDING "How many chairs are there?" [--convention opencv]

RECORDING: a folder of frames as ScanNet, OpenEQA or TUM have them, or a ROS bag (extra named bag).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from service.recordings.bag import read_bag
from service.recordings.folder import read_folder
from service.recordings.recording import Walk, WalkError
from tosa_vqa_client import Client, ClientError


def main(words: list[str] | None = None) -> None:
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("recording", type=Path)
    args.add_argument("question", nargs="+")
    args.add_argument("--url", default="http://127.0.0.1:8000")
    args.add_argument("--frames", type=int, default=32, help="most frames, spread evenly")
    args.add_argument("--convention", help="axes of the camera in poses; a bag and TUM's lists need none")
    args.add_argument("--intrinsics", type=json.loads, help='such as {"hfov": 75}, if the recording has none')
    args.add_argument("--tokens", type=int, default=144, help="visual tokens that a question reads")
    given = args.parse_args(words)
    try:
        walk = read_folder(given.recording) if is_folder(given.recording) else read_bag(given.recording)
    except (WalkError, OSError) as error:
        args.error(str(error))
    rule = {"merge_frames": "cover", "max_visual_tokens": given.tokens, **walk.fields}
    own = {"convention": given.convention, "intrinsics": given.intrinsics}
    rule |= {name: value for name, value in own.items() if value is not None}
    try:
        with Client(given.url) as service:
            tell(service, walk, rule, given.frames, given.question)
    except ClientError as error:
        raise SystemExit(str(error)) from None


def is_folder(path: Path) -> bool:
    """Return whether a recording is a folder of frames; a bag of ROS 2 is one with metadata.yaml."""
    return path.is_dir() and not (path / "metadata.yaml").exists()


def tell(service: Client, walk: Walk, rule: dict[str, Any], most: int, questions: list[str]) -> None:
    """Push the frames and print what became of each, then the answers."""
    episode = service.begin_episode(**rule).id
    for frame in walk.frames(most):
        own: Any = frame.fields
        taken = service.push_frame(episode, frame.image, frame.depth, **own)
        print(f"{frame.name}: {taken.placed} of {taken.tokens} tokens have a place")
        for note in taken.notes:
            print(f"  {note.sentence}")
    for question in questions:
        answer = service.ask_episode(episode, question)
        used = answer.episode
        assert used is not None, "answers about an episode say what of it was read"
        print(f"{question} {answer.answer} ({used.visual_tokens} tokens of {used.frames} frames)")
    service.end_episode(episode)


if __name__ == "__main__":
    main()
