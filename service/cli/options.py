"""The options that several commands share.

Each option about merging or depth is declared here once; commands receive it under the name of its request
field, as text, and None if it was not given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

FILE = click.Path(path_type=Path)

MODEL_OPTION = click.Option(["--model"], help="Embedded name, folder or hub id.")
MODEL_OPTIONS = (
    MODEL_OPTION,
    click.Option(["--depth-model"], help="Depth estimator, like --model; none turns depth estimation off."),
    click.Option(["--device"], help="cpu, cuda, ..."),
    click.Option(
        ["--device-map"], help="Divide the language model among GPUs: none, auto, balanced or sequential."
    ),
    click.Option(["--calibration"], type=FILE, help="File of tosa-vqa calibrate, for --method auto."),
    click.Option(["--device-memory-gib"], help="Memory for weights on each: cuda:0=20,cuda:1=40."),
)
MODEL_SETTINGS = tuple(str(option.name) for option in MODEL_OPTIONS)
MERGE_OPTIONS = (
    click.Option(["--method"], help="Merging method: none, tome, tosa, ...; an unknown name lists them."),
    click.Option(["--keep-ratio"], help="Share of the visual tokens to keep."),
    click.Option(["--r"], help="Tokens to remove per layer: 8, or 8,8,4."),
    click.Option(["--r-hw"], help="Rows and columns to remove per layer, for methods that keep a grid: 2,2."),
    click.Option(["--layers"], help="Layers that may merge, counted from 0: 1,2,5."),
    click.Option(["--schedule"], help="constant, decreasing, increasing, or a number in [-1, 1]."),
    click.Option(["--alpha"], help="increase, decrease, uniform, auto, or numbers."),
    click.Option(["--spatial-kernel"], help="sinusoidal or distance."),
    click.Option(
        ["--option", "options"], multiple=True, help="Option of the method, name=value; may be repeated."
    ),
    click.Option(["--prop-attn/--no-prop-attn"], default=None, help="Proportional attention."),
    click.Option(["--target-ms"], help="With --method auto: milliseconds that an answer may take."),
    click.Option(["--target-accuracy"], help="With --method auto: share of the accuracy to keep; 0.98."),
    click.Option(["--order"], help="Order of the visual tokens: raster or merge."),
)
VIEWS_OPTION = click.Option(
    ["--views"], help="How the model sees images: auto, single, anyres or video; its default if not given."
)
DEPTH_HELP = {
    "preset": "Source of the depth: scannet, tum, realsense:0.001, ...; an unknown name lists them.",
    "scale": "Depth units per metre; guessed if not given.",
    "kind": "metric, inverse or relative; guessed if not given.",
    "invalid": "Values that mark missing depth: 65535, or 0,65535.",
    "key": "Array of an NPZ, or channel of an OpenEXR file.",
    "shape": "Width x height of numbers without a header: 256x192.",
}
DEPTH_OPTIONS = (
    click.Option(
        ["--depth-source", "depth"],
        help="client: the given files; estimate: from the image; none: row and column only.",
    ),
    *(click.Option([f"--depth-{name}"], help=text) for name, text in DEPTH_HELP.items()),
)
FRAMES_OPTIONS = (
    click.Option(["--frames", "folder"], type=FILE, help="Folder of frames with poses, in place of --image."),
    click.Option(["--bag"], type=FILE, help="ROS bag, in place of --image; needs the extra named bag."),
    click.Option(
        ["--max-frames"],
        type=click.IntRange(1),
        default=32,
        help="Most frames of a recording, spread evenly from its first to its last.",
    ),
    click.Option(
        ["--bag-topic", "bag_topics"],
        multiple=True,
        help="image=/topic, depth=/topic or camera_info=/topic of a bag, where it has several.",
    ),
    click.Option(["--world-frame"], help="Frame of a bag's transforms that stands still: map, odom, ..."),
    click.Option(
        ["--pose", "poses"],
        multiple=True,
        help="Pose of each image, camera to world: JSON, 16 numbers, or a file with one of them.",
    ),
    click.Option(
        ["--timestamp", "timestamps"],
        type=float,
        multiple=True,
        help="When each image was taken, in seconds.",
    ),
    click.Option(
        ["--episode"],
        help="Id of an episode in TOSA_VQA_EPISODES_DIR, to go on with; begun if it is not there.",
    ),
    click.Option(
        ["--merge-frames"],
        help="How tokens merge across frames: none, seen, cover, ...; cover for recordings, else none.",
    ),
    click.Option(["--max-visual-tokens"], help="Most visual tokens of all frames together."),
    click.Option(["--convention"], help="Axes of the camera in poses: opencv, opengl, ros_optical, ..."),
    click.Option(
        ["--intrinsics"], help="Of the images, as JSON: fx, fy, cx and cy in pixels, or hfov in degrees."
    ),
    click.Option(["--depth-intrinsics"], help="Of the depth files, if they have others."),
)
INSPECT_OPTIONS = tuple(
    click.Option([f"--{name}", f"depth_{name}"], help=text) for name, text in DEPTH_HELP.items()
)


def with_options(*options: click.Option) -> Callable[[click.Command], click.Command]:
    """Add shared options to a command, after its own."""

    def add(command: click.Command) -> click.Command:
        command.params.extend(options)
        return command

    return add
