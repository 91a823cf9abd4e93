"""The questions of OpenEQA, and the frames that stand for an episode.

Sources: open-eqa-v0.json, the baselines (openeqa/baselines/gpt4v.py) and the extraction of frames
(data/*/extract-frames.py) of facebookresearch/open-eqa; ToSA's setting from its release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import click
import numpy as np

from evals.runners.geometry import Geometry, geometry_beside
from evals.runners.items import DatasetError, Entry, Item, read_json
from evals.runners.records import check_records

QUESTIONS = "open-eqa-v0.json"
PRESETS: Mapping[str, str] = MappingProxyType({"hm3d-v0": "openeqa-hm3d", "scannet-v0": "scannet"})
"""Data set of an episode, and the depth preset for the maps that the official extraction writes."""
CONVENTIONS: Mapping[str, str] = MappingProxyType({"hm3d-v0": "habitat", "scannet-v0": "scannet"})
"""Data set of an episode, and the axes of the camera in its poses."""
_HISTORY = re.compile(rf"({'|'.join(PRESETS)})/[\w.-]*\w")


EvalProtocol = Literal["official", "tosa"]
"""How the questions are asked."""
Source = Literal["hm3d-v0", "scannet-v0"]
"""The data sets that episodes come from."""


@dataclass(frozen=True)
class ProtocolDefaults:
    """What a protocol fixes. sensor_depth: whether depth maps are sent where an episode has them."""

    frames: int
    max_new_tokens: int
    sensor_depth: bool


PROTOCOLS: Mapping[EvalProtocol, ProtocolDefaults] = MappingProxyType(
    {
        "official": ProtocolDefaults(frames=12, max_new_tokens=128, sensor_depth=True),
        "tosa": ProtocolDefaults(frames=12, max_new_tokens=1000, sensor_depth=False),
    }
)
"""official: answers as long as the official baselines allow. tosa: as long as its release allows, no depth:
the release reads maps predicted from the frames and does not say by what, so the service estimates."""

LOAD_OPTIONS = (
    click.Option(
        ["--setting"],
        type=click.Choice(get_args(EvalProtocol)),
        help="Sets the next two, and whether depth is sent; official.",
    ),
    click.Option(["--frames"], type=click.IntRange(min=1), help="Frames of an episode, evenly spaced; 12."),
    click.Option(
        ["--answer-tokens"], type=click.IntRange(min=1), help="Longest answer; 128, or 1000 with tosa."
    ),
    click.Option(["--suffix"], help="A line to add to every question; none."),
    click.Option(
        ["--source"], type=click.Choice(get_args(Source)), help="Ask only about these episodes; both."
    ),
    click.Option(["--questions"], type=click.Path(path_type=Path), help="JSON list of the ids to ask; all."),
)


@dataclass(frozen=True)
class Record:
    """One entry of the official file, as far as it is used."""

    question: str
    answer: str
    category: str
    question_id: str
    episode_history: str
    extra_answers: list[str | None] | None = None


@dataclass(frozen=True)
class Episode:
    """The frames that stand for an episode; depths: none, or one per image.

    geometry: None where no frame has a pose.
    """

    images: tuple[Path, ...]
    depths: tuple[Path, ...]
    geometry: Geometry | None = None


def load(
    data: Path,
    setting: EvalProtocol = "official",
    frames: int | None = None,
    answer_tokens: int | None = None,
    suffix: str = "",
    source: Source | None = None,
    questions: Path | None = None,
) -> list[Entry[Record]]:
    """Read the questions, and choose frames from data/frames/<episode_history>. Raises DatasetError."""
    asked = PROTOCOLS[setting]
    records = _records(data / QUESTIONS)
    if questions is not None:
        records = _listed(records, questions)
    records = [one for one in records if source in (None, one.episode_history.split("/")[0])]
    if not records:
        named = "" if source is None else f" about an episode of {source}"
        raise DatasetError(f"{questions or data / QUESTIONS} has no question{named}")
    episodes = _episodes(
        data / "frames",
        list(dict.fromkeys(record.episode_history for record in records)),
        frames or asked.frames,
        asked.sensor_depth,
    )
    tokens = answer_tokens or asked.max_new_tokens
    return [_entry(record, episodes[record.episode_history], suffix, tokens) for record in records]


def evenly(paths: Sequence[Path], count: int) -> tuple[Path, ...]:
    """Choose `count` frames as the official baselines do: positions of linspace, rounded half to even.

    An episode with fewer frames than that repeats some.
    """
    return tuple(paths[int(at)] for at in np.round(np.linspace(0, len(paths) - 1, count)))


def _entry(record: Record, episode: Episode, suffix: str, tokens: int) -> Entry[Record]:
    item = Item(
        id=record.question_id,
        question=f"{record.question}\n{suffix}" if suffix else record.question,
        images=episode.images,
        depths=episode.depths,
        depth_preset=PRESETS[record.episode_history.split("/")[0]] if episode.depths else None,
        max_new_tokens=tokens,
        geometry=episode.geometry,
    )
    return Entry(item, record)


def _records(path: Path) -> list[Record]:
    records = check_records(path, read_json(path), list[Record])
    for number, record in enumerate(records):
        if not _HISTORY.fullmatch(record.episode_history):
            raise DatasetError(
                f"{path}, entry {number}: episode_history is {record.episode_history!r}, "
                f"expected a folder name behind {' or '.join(f'{name}/' for name in PRESETS)}"
            )
    return records


def _listed(records: Sequence[Record], path: Path) -> list[Record]:
    """Keep the questions that a file lists by id, as the official open-eqa-v0-184-questions.json does."""
    wanted = set(check_records(path, read_json(path), list[str]))
    unknown = wanted - {record.question_id for record in records}
    if unknown:
        raise DatasetError(f"{path} lists {len(unknown)} unknown questions, one is {min(unknown)}")
    return [record for record in records if record.question_id in wanted]


def _episodes(folder: Path, histories: Sequence[str], count: int, with_depth: bool) -> dict[str, Episode]:
    listed = {history: sorted((folder / history).glob("*-rgb.png")) for history in histories}
    missing = [history for history in histories if not listed[history]]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(histories)} episodes have no frames, the first is "
            f"{folder / missing[0]}: expected 000000-rgb.png and so on there, as the official extraction "
            "writes them; --source asks about the episodes of one data set, --questions about those listed"
        )
    chosen = {history: evenly(paths, count) for history, paths in listed.items()}
    return {
        history: Episode(images, _depths(images) if with_depth else (), _geometry(images, history))
        for history, images in chosen.items()
    }


def _geometry(images: Sequence[Path], history: str) -> Geometry | None:
    """Return the poses beside the frames: 000000.txt of 000000-rgb.png."""
    poses = [path.with_name(f"{path.name.removesuffix('-rgb.png')}.txt") for path in images]
    return geometry_beside(poses, [images[0].parent], CONVENTIONS[history.split("/")[0]])


def _depths(images: Sequence[Path]) -> tuple[Path, ...]:
    """Return the depth maps beside the frames; none if no frame has one."""
    depths = tuple(path.with_name(path.name.removesuffix("-rgb.png") + "-depth.png") for path in images)
    missing = [path for path in dict.fromkeys(depths) if not path.is_file()]
    if missing and len(missing) < len(set(depths)):
        raise DatasetError(
            f"{len(missing)} of {len(set(depths))} frames chosen of {missing[0].parent} have no depth, the "
            f"first lacks {missing[0].name}: extract depth again, or remove what there is of it"
        )
    return () if missing else depths
