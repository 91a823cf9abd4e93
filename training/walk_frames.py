"""Frames of walks and single scenes through a tower that learns no more: encoded once, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from evals.rooms import Question, make_scene, questions, render
from evals.rooms.walks import EIGHT, FRAMES, Sights, WalkExample, make_walk, render_view, sights
from evals.rooms.walks.geometry import frame_tokens
from evals.rooms.walks.towers import Towers, remembered
from service.roomqa.depth_cameras import sensed_depth
from service.roomqa.walks.world import SECONDS_APART
from tosa.frames import FrameTokens
from tosa.plan import MergePlan

ALONE_TOKENS = 17
"""Of each of eight frames that are merged alone: 144 with their separators."""
SINGLE_TOKENS = (576, 144)


@dataclass(frozen=True, eq=False)
class EncodedWalk:
    """Hold eight frames of a walk: all tokens with their places, those of frames merged alone, what was seen.

    alone: [8, ALONE_TOKENS, D].
    """

    frames: tuple[FrameTokens, ...]
    alone: Tensor
    seen: Sights


@dataclass(frozen=True, eq=False)
class EncodedScene:
    """Hold the tokens of a single frame by their number, [n, D] each, and its questions."""

    tokens: dict[int, Tensor]
    questions: list[Question]


class WalkFrames:
    """Encode walks and scenes by seed, or read them where they were encoded before."""

    def __init__(self, towers: Towers, grid: int, kept: Path) -> None:
        self._towers, self._grid, self._kept = towers, grid, kept
        kept.mkdir(parents=True, exist_ok=True)

    def walk(self, seed: int) -> EncodedWalk:
        """Return a walk; those of even seeds have the depth of a sensor."""
        found = self.remembered(f"walk-{seed}", lambda: self._encoded_walk(seed))
        walk = make_walk(seed)
        frames = tuple(
            FrameTokens(
                found["features"][at].float(),
                torch.arange(found["features"].shape[1]),
                found["points"][at],
                found["is_edge"][at],
                torch.from_numpy(walk.cameras[frame].pose),
                (self._grid, self._grid),
                tuple(found["camera"].tolist()),
                frame * SECONDS_APART,
            )
            for at, frame in enumerate(EIGHT)
        )
        seen = Sights(walk, found["shares"].numpy(), found["first_u"].numpy())
        return EncodedWalk(frames, found["alone"].float(), seen)

    def scene(self, seed: int, asked: int, per_scene: int) -> EncodedScene:
        """Return a furnished scene and questions about it. asked: the seed of these."""
        found = self.remembered(f"scene-{seed}", lambda: self._encoded_scene(seed))
        scene = make_scene(seed)
        frame = render(scene, 192)  # what is in view is nearly the same at half the size
        tokens = {number: found[str(number)].float() for number in SINGLE_TOKENS}
        return EncodedScene(tokens, questions(scene, frame, asked, per_scene))

    def remembered(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return what was made under a name, or make it."""
        return remembered(self._kept / f"{name}.safetensors", make)

    def _encoded_walk(self, seed: int) -> dict[str, Tensor]:
        walk = make_walk(seed)
        views = tuple(render_view(walk, at) for at in range(FRAMES))
        example, seen = WalkExample(walk, views, ()), sights(walk, views)
        every, alone = self._towers.inside("none"), self._towers.plan("tosa", ALONE_TOKENS)
        placed = []
        for at in EIGHT:
            depth = views[at].depth if seed % 2 else sensed_depth(views[at].depth, FRAMES * seed + at)
            features, source = self._features(example, at, every)
            pose = walk.cameras[at].pose
            placed.append(frame_tokens(features, source, depth, pose, at * SECONDS_APART, self._grid))
        return {
            "features": torch.stack([one.features for one in placed]).half(),
            "points": torch.stack([one.points for one in placed]),
            "is_edge": torch.stack([one.is_edge for one in placed]),
            "camera": torch.tensor(placed[0].camera, dtype=torch.float64),
            "alone": torch.stack([self._features(example, at, alone)[0] for at in EIGHT]).half(),
            "shares": torch.from_numpy(seen.shares),
            "first_u": torch.from_numpy(seen.first_u),
        }

    def _encoded_scene(self, seed: int) -> dict[str, Tensor]:
        view = render(make_scene(seed))
        example = WalkExample(make_walk(seed), (view,), ())  # only the frame is looked at
        plans = {number: self._towers.plan("tosa", number) for number in SINGLE_TOKENS}
        return {str(number): self._features(example, 0, plan)[0].half() for number, plan in plans.items()}

    def _features(self, example: WalkExample, frame: int, plan: MergePlan) -> tuple[Tensor, Tensor]:
        """Return tokens without their separator, which still learns, and the token of each patch."""
        features, source = self._towers.encode(example, frame, plan)
        return features[:-1], source
