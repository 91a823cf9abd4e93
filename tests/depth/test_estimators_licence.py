"""Licences of depth estimators: refused, allowed, warned about, and logged once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from depth.estimators import load_depth_estimator
from tests.depth.estimators import refusal

Small = Callable[..., Path]


@pytest.mark.parametrize(
    "card",
    [
        "license: cc-by-nc-4.0",
        "license: cc-by-nc-sa-4.0",
        "license: apple-amlr",
        "license: [mit, cc-by-nc-2.0]",
        "license: other\nlicense_name: apple-amlr",
        "license: other\nlicense_name: some-research-license",
        "license: other\nlicense_name: owner-noncommercial",
        "license: other\nlicense_name: x-non-commercial",
        "license: apache-2.0\nbase_model: depth-anything/Depth-Anything-V2-Large-hf",
        "base_model:\n- a/b\n- depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf",
    ],
)
def test_a_non_commercial_licence_is_refused_unless_allowed(
    small: Small, card: str, caplog: pytest.LogCaptureFixture
):
    folder = small(card=card)
    error = refusal(folder)
    assert error.code == "licence_refused"
    assert "allow_non_commercial" in str(error)
    assert load_depth_estimator(folder, size_px=64, allow_non_commercial=True).kind == "inverse"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


NON_COMMERCIAL_NAMES = [
    "Depth-Anything-V2-Base-hf",
    "Depth-Anything-V2-Large",
    "Depth-Anything-V2-Metric-Outdoor-Large-hf",
    "Depth-Anything-V2-Metric-Indoor-Base-hf",
    "depth_anything_v2_vitl",
    "models--depth-anything--Depth-Anything-V2-Large-hf",
    "DepthPro-hf",
]


@pytest.mark.parametrize("name", NON_COMMERCIAL_NAMES)
@pytest.mark.parametrize("card", [None, "license: apache-2.0"])
def test_a_name_known_as_non_commercial_outweighs_its_card(small: Small, name: str, card: str | None):
    error = refusal(small(name, card))
    assert error.code == "licence_refused"
    assert ("apache-2.0" if card else "names no licence") in str(error)


@pytest.mark.parametrize(
    ("name", "card", "licence"),
    [
        ("Depth-Anything-V2-Small-hf", "license: apache-2.0", "apache-2.0"),
        ("Depth-Anything-V2-Metric-Indoor-Small-hf", "license: apache-2.0", "apache-2.0"),
        ("depth-anything-large-hf", "license: apache-2.0", "apache-2.0"),
        ("model", "license: other\nlicense_name: my-licence", "my-licence"),
        ("model", "license: other", "other"),
        ("model", "license: [mit, apache-2.0]", "mit, apache-2.0"),
    ],
)
def test_a_licence_is_logged_once(
    small: Small, name: str, card: str, licence: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="depth")
    estimator = load_depth_estimator(small(name, card), size_px=64)
    assert estimator.licence == licence
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert caplog.messages[0].endswith(f"has the licence {licence}")


@pytest.mark.parametrize("card", [None, "tags: [depth]", "license: [", "- a\n- b"])
def test_an_unknown_licence_is_a_warning(small: Small, card: str | None, caplog: pytest.LogCaptureFixture):
    estimator = load_depth_estimator(small(card=card), size_px=64)
    assert estimator.licence is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "names no licence" in caplog.messages[0]


def test_a_refused_licence_costs_no_download(small: Small, monkeypatch: pytest.MonkeyPatch):
    folder, asked = small("commit", "license: cc-by-nc-4.0"), []

    def snapshot(source: str, revision: str | None, allow_patterns: Any) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert refusal("owner/model").code == "licence_refused"
    assert asked == [["*.json", "README.md", "SHA256SUMS"]]
