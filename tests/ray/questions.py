"""The bundled frames and questions, in several modes, and what one process answers to them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.ray.cluster import ROOT
from tests.service.conftest import until_ready

FRAMES = ROOT / "examples" / "frames"
MODES: tuple[dict[str, str], ...] = (
    {"method": "none"},
    {"method": "tosa", "keep_ratio": "0.25"},
    {"method": "tome", "keep_ratio": "0.5"},
    {"method": "cubist", "keep_ratio": "0.25"},
)


@dataclass(frozen=True)
class Asked:
    """One question about one bundled frame in one mode."""

    frame: str
    question: str
    mode: tuple[tuple[str, str], ...]

    def post(self, client: Any, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        folder = FRAMES / self.frame
        files = {
            name: (f"{stem}.png", (folder / f"{stem}.png").read_bytes())
            for name, stem in (("image", "rgb"), ("depth", "depth"))
        }
        data = {"question": self.question, **dict(self.mode), **fields}
        return client.post("/vqa", data=data, files=files, headers=headers)


def bundled(limit: int = 3) -> list[Asked]:
    """Return some questions about every bundled frame, the modes interleaved."""
    return [
        Asked(folder.name, one["question"], tuple(sorted(mode.items())))
        for number in range(limit)
        for folder in sorted(path for path in FRAMES.iterdir() if path.is_dir())
        for mode in MODES
        for one in [json.loads((folder / "scene.json").read_text())["questions"][number]]
    ]


@cache
def expected() -> dict[Asked, str]:
    """Ask one process without Ray."""
    with TestClient(create_app(Settings(depth_model="none"))) as client:
        until_ready(client)
        return {request: answer_of(request.post(client)) for request in bundled()}


def answer_of(response: httpx.Response) -> str:
    """Return what must not depend on who answers: the text and what was done."""
    assert response.status_code == 200, response.text
    answer = response.json()
    return json.dumps([answer["answer"], answer["merge"], answer["usage"]])
