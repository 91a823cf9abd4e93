"""The list of files by itself: written, read, compared, in the format of sha256sum."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.needs import needs
from vlm.checkpoint_files import MANIFEST, ManifestError, weights_hash, write_manifest
from vlm.checkpoint_files.manifest import digest_of, files_of, read_manifest, refuse_unlisted, verify

DIGEST = "0" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three files, one of them further down, and its manifest."""
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "model.safetensors").write_bytes(bytes(range(256)))
    (made / "deep" / "more words.txt").write_text("more")
    write_manifest(made)
    return made


def check(folder: Path) -> None:
    """Compare everything, as loading does in two steps."""
    digests = read_manifest(folder)
    assert digests is not None
    verify(folder, digests, list(digests), folder)
    refuse_unlisted(folder, digests)


def refusal(folder: Path) -> str:
    with pytest.raises(ManifestError) as error:
        check(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_manifest_lists_every_file_but_itself(folder: Path) -> None:
    assert set(read_manifest(folder) or ()) == {"config.json", "deep/more words.txt", "model.safetensors"}
    check(folder)
    before = (folder / MANIFEST).read_text()
    assert write_manifest(folder).read_text() == before


@needs("sha256sum")
def test_the_format_is_that_of_sha256sum(folder: Path) -> None:
    words = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST]
    assert subprocess.run(words, cwd=folder).returncode == 0
    names = ["./config.json", "model.safetensors", "deep/more words.txt"]
    for form in ("--text", "--binary"):
        theirs = subprocess.run(["sha256sum", form, *names], cwd=folder, capture_output=True, check=True)
        (folder / MANIFEST).write_bytes(b"# by hand\n" + theirs.stdout.replace(b"\n", b"\r\n"))
        check(folder)


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda at: flip(at / "model.safetensors"), "model.safetensors is not the file"),
        (lambda at: flip(at / "config.json"), "config.json is not the file"),
        (lambda at: (at / "config.json").unlink(), "config.json is missing"),
        (lambda at: (at / "code.py").write_text(""), "code.py is not in"),
        (lambda at: (at / ".code.py").write_text(""), ".code.py is not in"),
        (lambda at: (at / "deep" / "2.safetensors").write_text(""), "deep/2.safetensors is not in"),
        (lambda at: (at / "pytorch_model.bin").write_text(""), "pytorch_model.bin is not in"),
        (lambda at: (at / "line\nbreak").write_text(""), "'line\\nbreak' is not in"),
        (lambda at: (at / "out").symlink_to(at.parent, target_is_directory=True), "out is not in"),
        (lambda at: swap(at / "config.json", at / "config.json"), "config.json cannot be read"),
        (lambda at: (at / MANIFEST).write_bytes(b"\xff\xfe"), "cannot be read"),
    ],
    ids=[
        "flip",
        "flip settings",
        "missing",
        "py",
        "hidden py",
        "weights",
        "bin",
        "line",
        "dir",
        "loop",
        "text",
    ],
)
def test_what_differs_is_named(folder: Path, damage: Callable[[Path], object], named: str) -> None:
    check(folder)
    damage(folder)
    assert named in refusal(folder)


def flip(path: Path) -> None:
    """Change the last bit of a file."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def swap(path: Path, target: Path) -> None:
    """Put a link in place of a file."""
    path.unlink()
    path.symlink_to(target)


def test_a_link_may_not_lead_out_even_to_the_same_bytes(folder: Path) -> None:
    outside = folder.parent / "outside.json"
    shutil.copy(folder / "config.json", outside)
    swap(folder / "config.json", outside)
    assert "config.json is a link out of the folder" in refusal(folder)
    with pytest.raises(ManifestError, match="link out"):
        write_manifest(folder)


def test_a_link_within_is_a_file_like_others(folder: Path) -> None:
    (folder / "..data").mkdir()  # as volumes of Kubernetes have it
    (folder / "config.json").rename(folder / "..data" / "config.json")
    (folder / "config.json").symlink_to("..data/config.json")
    check(folder)
    named = folder.with_name("named")
    named.symlink_to(folder, target_is_directory=True)
    check(named)


def test_what_no_loader_reads_may_come_beside(folder: Path) -> None:
    (folder / ".gitattributes").write_text("")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "trace.py").write_text("")
    check(folder)
    assert ".gitattributes" not in files_of(folder)


@pytest.mark.parametrize(
    "line",
    [
        f"{DIGEST}  ../outside",
        f"{DIGEST}  deep/../../outside",
        f"{DIGEST}  /etc/hostname",
        f"{DIGEST}  .",
        f"{DIGEST}  {MANIFEST}",
        f"{DIGEST}  a\0b",
        f"{DIGEST} config.json",
        f"{DIGEST[1:]}  config.json",
        f"{DIGEST[1:]}g  config.json",
        f"\\{DIGEST}  a\\nb",
        f"SHA256 (config.json) = {DIGEST}",
        "config.json",
        f"{DIGEST}  config.json\n{DIGEST} *./config.json",
        "",
        "# nothing",
    ],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, line: str) -> None:
    (folder / MANIFEST).write_text(line + "\n")
    assert MANIFEST in refusal(folder)


def test_a_name_too_long_is_refused(folder: Path) -> None:
    (folder / MANIFEST).write_text(f"{DIGEST}  {'a' * 5000}\n")
    assert "aaa" in refusal(folder)


@pytest.mark.parametrize("name", ["line\nbreak", "back\\slash"])
def test_a_name_that_cannot_be_listed_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(ManifestError, match="cannot be listed"):
        write_manifest(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no file"):
        write_manifest(tmp_path)


def test_the_revision_is_the_same_with_digests_that_are_known(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, read = read_manifest(folder), []
    monkeypatch.setattr(
        "vlm.checkpoint_files.files.digest_of", lambda path: read.append(path) or digest_of(path)
    )
    assert weights_hash(folder) == weights_hash(folder, known)
    assert len(read) == 1
