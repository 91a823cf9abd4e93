"""Loading what a manifest lists, for both kinds of model; every refusal has a twin that loads."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import depth.estimators.load
import vlm.load
from depth.estimate import EstimatorError
from depth.estimators import load_depth_estimator
from tests.checkpoints.test_manifest import flip, swap
from tests.depth.estimators import CASES
from tests.depth.estimators import write_checkpoint as write_estimator
from tests.vlm.conftest import write_checkpoint as write_vlm
from vlm import VlmError, load_vlm
from vlm.checkpoint_files import MANIFEST, write_manifest
from vlm.load import load_shape

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kind:
    """How one kind of model is made and loaded, and what refuses it."""

    write: Callable[[Path], Path]
    load: Callable[..., Any]
    error: type[Exception]
    embedded: str
    places: dict[str, Path]

    def refusal(self, source: str | Path, **options: Any) -> str:
        with pytest.raises(self.error) as error:
            self.load(source, **options)
        assert error.value.code == "broken_checkpoint"  # type: ignore[attr-defined]
        assert "\n" not in str(error.value)
        return str(error.value)


def load_small(source: str | Path, **options: Any) -> Any:
    return load_depth_estimator(source, size_px=64, **options)


KINDS = {
    "vlm": Kind(write_vlm, load_vlm, VlmError, "room-tiny", vlm.load.EMBEDDED),
    "depth": Kind(
        lambda folder: write_estimator(folder, CASES["depth-anything"]),
        load_small,
        EstimatorError,
        "room-depth-tiny",
        depth.estimators.load.EMBEDDED,
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("originals")
    return {name: kind.write(at / name) for name, kind in KINDS.items()}


@pytest.fixture
def folder(kind: Kind, originals: dict[str, Path], tmp_path: Path) -> Path:
    """Return a checkpoint with a manifest, to be damaged."""
    name = next(name for name, one in KINDS.items() if one is kind)
    shutil.copytree(originals[name], tmp_path / "made")
    write_manifest(tmp_path / "made")
    return tmp_path / "made"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_listed_loads_and_has_the_revision_of_its_weights(kind: Kind, folder: Path) -> None:
    revision = kind.load(folder, require_manifest=True).revision
    (folder / MANIFEST).unlink()
    assert kind.load(folder).revision == revision
    assert f"has no {MANIFEST}" in kind.refusal(folder, require_manifest=True)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flip", "missing"])
def test_one_bit_or_file_is_enough(
    kind: Kind, folder: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(folder / name)
    assert name in kind.refusal(folder)


class Trap:
    """Leave a trace if it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "modeling_trap.py", "more.safetensors", "adapter_config.json"]
)
def test_what_came_beside_is_refused(kind: Kind, folder: Path, name: str) -> None:
    (folder / name).write_text("")
    assert f"{name} is not in {MANIFEST}" in kind.refusal(folder)


def test_without_a_manifest_pickles_and_code_are_passed_over(
    kind: Kind, folder: Path, tmp_path: Path
) -> None:
    (folder / MANIFEST).unlink()
    trace = tmp_path / "trace"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(trace)))
    (folder / "modeling_trap.py").write_text(f"open({str(trace)!r}, 'w')")
    kind.load(folder)
    assert not trace.exists()
    pickle.loads((folder / "pytorch_model.bin").read_bytes())
    assert trace.exists()  # the trap works


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
)
def test_code_asked_for_is_refused_listed_or_not(kind: Kind, folder: Path, name: str, listed: bool) -> None:
    (folder / name).touch()
    (folder / name).write_text((folder / name).read_text() or "{}")
    edit(folder / name, deep=[{"auto_map": {"AutoModel": "trap.Model"}}])
    write_manifest(folder) if listed else (folder / MANIFEST).unlink()
    assert f"{name} asks for code of its own (auto_map)" in kind.refusal(folder)
    edit(folder / name, deep=[{"auto_map": {}}])
    write_manifest(folder)
    kind.load(folder)


def test_a_shard_that_is_missing_is_named(tmp_path: Path, originals: dict[str, Path]) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(originals["vlm"], folder)
    load_vlm(folder).model.save_pretrained(folder, max_shard_size="40KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    write_manifest(folder)
    assert len(load_vlm(folder).revision) == 16
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"{shard.name} is missing" in KINDS["vlm"].refusal(folder)


def test_links_and_names_that_lead_out_are_refused(kind: Kind, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    shutil.copy(folder / "model.safetensors", outside)
    swap(folder / "model.safetensors", outside)
    assert "model.safetensors is a link out of the folder" in kind.refusal(folder)
    with (folder / MANIFEST).open("a") as manifest:
        manifest.write(f"{'0' * 64}  ../outside.safetensors\n")
    assert "../outside.safetensors, which is no file of the folder" in kind.refusal(folder)


def test_the_embedded_checkpoints_are_listed(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "embedded"
    shutil.copytree(kind.places[kind.embedded], copy)
    monkeypatch.setitem(kind.places, kind.embedded, copy)
    kind.load(kind.embedded)
    flip(sorted(copy.glob("*.safetensors"))[-1])
    assert "is not the file" in kind.refusal(kind.embedded)
    (copy / MANIFEST).unlink()
    assert f"has no {MANIFEST}" in kind.refusal(kind.embedded)


def test_a_plan_reads_verified_settings_and_no_weights(originals: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(originals["vlm"], tmp_path / "made")
    write_manifest(tmp_path / "made")
    flip(tmp_path / "made" / "model.safetensors")
    assert load_shape(tmp_path / "made").num_layers == 3
    flip(tmp_path / "made" / "config.json")
    with pytest.raises(VlmError, match=r"config\.json is not the file"):
        load_shape(tmp_path / "made")


@pytest.fixture
def hub(kind: Kind, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the snapshot of a hub id: links to blobs beside, and nothing that was not asked for."""
    write_manifest(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never downloaded")
    write_manifest(folder)
    (folder / "pytorch_model.bin").unlink()
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "0123abcd"
    blobs = tmp_path / "models--owner--model" / "blobs"
    snapshot.mkdir(parents=True)
    folder.rename(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(os.path.relpath(blob, snapshot))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    return snapshot


def test_a_hub_id_is_verified_if_it_has_a_manifest(kind: Kind, hub: Path) -> None:
    assert kind.load("owner/model", require_manifest=True).revision == "0123abcd"
    flip((hub / "model.safetensors").resolve())
    assert "model.safetensors is not the file" in kind.refusal("owner/model")
    (hub / MANIFEST).unlink()
    assert kind.load("owner/model").revision == "0123abcd"
    assert f"has no {MANIFEST}" in kind.refusal("owner/model", require_manifest=True)


def test_a_link_out_of_the_hubs_cache_is_refused(kind: Kind, hub: Path, tmp_path: Path) -> None:
    shutil.copy(hub / "config.json", tmp_path / "config.json")
    swap(hub / "config.json", tmp_path / "config.json")
    assert "config.json is a link out" in kind.refusal("owner/model")


@pytest.mark.long
def test_the_same_holds_where_asserts_are_gone(tmp_path: Path) -> None:
    """Only refusals can be seen there, so a script counts them."""
    script = f"""
import sys
assert False, "asserts are still here"
from pathlib import Path
from tests.checkpoints.test_manifest import flip
from tests.vlm.conftest import write_checkpoint
from vlm.checkpoint_files import write_manifest
from vlm import VlmError, load_vlm
folder = write_checkpoint(Path({str(tmp_path / "made")!r}))
write_manifest(folder)
load_vlm(folder)
for damage in (
    lambda: (folder / "code.py").write_text(""),
    lambda: ((folder / "code.py").unlink(), flip(folder / "model.safetensors")),
    lambda: (folder / "SHA256SUMS").write_text("0" * 64 + "  ../made/config.json"),
    lambda: (folder / "SHA256SUMS").unlink(),
):
    damage()
    try:
        load_vlm(folder, require_manifest=True)
    except VlmError as error:
        print(error.code)
"""
    done = subprocess.run(
        [sys.executable, "-O", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["broken_checkpoint"] * 4
