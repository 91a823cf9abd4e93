"""The dense probe: what it reads of a tower, which controls it sets beside it, and what it reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SiglipVisionModel

from evals.dense import __main__ as command
from evals.dense.probe import Probed, Scores, depth_maps, probe, scenes, spatial_of, under
from evals.dense.report import measured, pooled, rows
from evals.dense.settings import settings_at
from evals.dense.tower import Tower, load_tower
from evals.rooms import VALIDATION
from evals.rooms.conditions import Condition
from tosa import MergeSpec, Tokens, make_plan
from training.model import DenseHeads, build_vision_config
from training.symbols import SHAPE, THING

NONE = MergeSpec()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint of stage 2 with random weights."""
    torch.manual_seed(0)
    model = SiglipVisionModel(build_vision_config())
    parts = torch.nn.ModuleDict({"tower": model, "heads": DenseHeads()})
    out = tmp_path_factory.mktemp("stage2")
    torch.save({"parts": parts.state_dict(), "optimiser": {}, "step": 7}, out / "last.pt")
    return out


@pytest.fixture(scope="module")
def tower(folder: Path) -> Tower:
    return load_tower(folder)


@pytest.fixture(scope="module")
def probed() -> Probed:
    return scenes(VALIDATION[:3], 24)


def test_heads_are_scored_on_the_patches_of_things_alone(tower: Tower, probed: Probed) -> None:
    scores = probe(tower, probed, make_plan(NONE, tower.shape))
    things = (probed.symbols[..., THING] > 0).sum((1, 2)).tolist()
    assert list(map(len, scores.shape)) == list(map(len, scores.distance)) == things
    with torch.inference_mode():
        hidden = tower.adapter.embed(probed.pixels)
        for block in tower.adapter.blocks:
            hidden = hidden + block.attend(block.norm1(hidden), Tokens.start(hidden, (24, 24)), None)[0]
            hidden = hidden + block.mlp(block.norm2(hidden))
        said = tower.heads(hidden)[..., SHAPE].argmax(-1)
    thing = probed.symbols[0, :, THING].squeeze(-1) > 0
    right = said[0, thing] == probed.symbols[0, thing][:, SHAPE].argmax(-1)
    assert scores.shape[0] == right.float().tolist()


def test_a_condition_spoils_the_picture_and_leaves_the_truth(probed: Probed) -> None:
    dark = under(probed, Condition("dark", 3))
    assert not torch.equal(dark.pixels, probed.pixels)
    assert dark.symbols is probed.symbols
    assert under(probed, None) is probed


def test_sources_of_depth(probed: Probed) -> None:
    exact = depth_maps(probed, "true")
    shuffled = depth_maps(probed, "shuffled")
    assert all(map(np.array_equal, shuffled, [*exact[1:], exact[0]]))
    dark = under(probed, Condition("dark", 3))
    holes = [np.mean([(each == 0).mean() for each in depth_maps(seen, "stereo")]) for seen in (probed, dark)]
    assert holes[0] < holes[1]
    active = [depth_maps(seen, "sensed") for seen in (probed, dark)]
    assert all(map(np.array_equal, *active))  # its own light
    true, flat = (spatial_of(probed, source, (24, 24)) for source in ("true", "x and y"))
    assert true.shape == (3, 576, 72) and flat.shape == (3, 576, 49)  # a channel of zeros: no depth


def test_every_setting_has_tome_and_its_controls_beside_it() -> None:
    settings = settings_at(0.25, ("tosa", "pitome"), ("increase", 0.5), ("true", "shuffled"))
    assert [one.name for one in settings] == [
        "tome",
        "pitome",
        "tosa increase, true",
        "tosa increase, shuffled",
        "tosa 0.5, true",
        "tosa 0.5, shuffled",
    ]


def test_rows_by_hand() -> None:
    tome, true, control = settings_at(0.25, ("tosa",), (0.5,), ("true", "shuffled"))
    found = {
        tome: Scores([[1, 0], [1]], [[0.2, 0.2], [0.5]]),
        true: Scores([[1, 1], [1]], [[0.1, 0.1], [0.4]]),
        control: Scores([[0, 1], [1]], [[0.2, 0.1], [0.4]]),
    }
    none = Scores([[0, 0], [1]], [[0.3, 0.3], [0.6]])
    by_name = {row["name"]: row for row in rows(found, none)}
    row = by_name["tosa 0.5, true"]
    assert row["shape"] == [1.0, 1.0, 1.0]
    assert row["minus_tome"]["shape"][0] == pytest.approx(1 / 3, abs=1e-5)
    assert row["minus_tome"]["distance"] == pytest.approx([-0.1] * 3, abs=1e-5)
    assert row["minus_control"]["distance"][0] == pytest.approx(-0.1 / 3, abs=1e-5)
    assert row["minus_none"]["shape"][0] == pytest.approx(2 / 3, abs=1e-5)
    assert "minus_tome" not in by_name["tome"] and "minus_control" not in by_name["tosa 0.5, shuffled"]
    both = pooled([found[tome], found[true]])
    assert both.shape == [[1, 0, 1, 1], [1, 1]]
    assert measured(both)["shape"][0] == pytest.approx(5 / 6, abs=1e-5)


def test_the_command_writes_every_setting_under_every_condition(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dense.json"
    given = ["--tower", str(folder), "--scenes", "2", "--keep-ratios", "0.1", "--alphas", "0.5"]
    given += ["--depths", "true", "shuffled", "--threads", "1"]
    command.main([*given, "--conditions", "clean", "dark", "--out", str(out)])
    result = json.loads(out.read_text())
    names = ["none", "tome", "tosa 0.5, true", "tosa 0.5, shuffled"]
    assert list(result["conditions"]) == ["clean", "dark:2"]
    for described in (*result["conditions"].values(), result["together"]):
        assert [row["name"] for row in described] == names
    assert result["tower"]["steps"] == 7
    with pytest.raises(SystemExit):
        command.main([*given, "--conditions", "rain"])
    assert "unknown condition 'rain'" in capsys.readouterr().err


def test_a_missing_tower_is_trained(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(command, "make_tower", lambda *given: made.append(given))
    monkeypatch.setattr(command, "load_tower", lambda path: load_tower(folder))
    monkeypatch.setattr(command, "compare", lambda *given: {"together": []})
    command.main(["--tower", str(tmp_path / "none"), "--scenes", "1", "--threads", "1"])
    assert made == [(tmp_path / "none", 1)]
    command.main(["--tower", str(folder), "--scenes", "1", "--threads", "1"])
    assert len(made) == 1
