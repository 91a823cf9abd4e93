"""A checkpoint's manifest: its files with their SHA-256, in the format of `sha256sum -c`.

It detects damage and added files. It does not detect forgery: anyone who can write to the folder can also
write the manifest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

MANIFEST = "SHA256SUMS"
LOADED = (".safetensors", ".py")
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")


class ManifestError(Exception):
    """One sentence naming the file that differs from the manifest."""


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 of every listed file, as hex digits by name; None if the folder has no manifest.

    Names are relative and lead nowhere else. Raises ManifestError.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        if (folder / MANIFEST).is_symlink():
            raise ManifestError(f"{MANIFEST} is a link that leads nowhere") from None
        return None
    except (OSError, UnicodeDecodeError):
        raise ManifestError(f"{MANIFEST} cannot be read") from None
    digests: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            name, digest = _parse(line.rstrip("\r"), number)
            if name in digests:
                raise ManifestError(f"{MANIFEST} lists {shown(name)} twice")
            digests[name] = digest
    if not digests:
        raise ManifestError(f"{MANIFEST} lists no file")
    return digests


def write_manifest(folder: Path) -> Path:
    """List every file of a folder as it is now. Raises ManifestError, OSError."""
    names = sorted(files_of(folder))
    if not names:
        raise ManifestError(f"{folder} holds no file")
    for name in names:
        if not name.isprintable() or "\\" in name:
            raise ManifestError(f"{shown(name)} is a name that cannot be listed")
    lines = [f"{digest_of(inside(folder, name, folder))}  {name}\n" for name in names]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")
    return folder / MANIFEST


def verify(folder: Path, digests: Mapping[str, str], names: Collection[str], root: Path) -> None:
    """Compare files with their digests. Raises ManifestError naming the first that differs.

    `root`: links may not lead out of this folder.
    """
    for name in names:
        path = inside(folder, name, root)
        if digest_of(path) != digests[name]:
            raise ManifestError(f"{shown(name)} is not the file that {MANIFEST} lists")


def refuse_unlisted(folder: Path, digests: Mapping[str, str]) -> None:
    """Raise ManifestError if the folder holds a file that its manifest does not list."""
    for name in sorted(files_of(folder) - set(digests)):
        raise ManifestError(f"{shown(name)} is not in {MANIFEST}")


def files_of(folder: Path) -> set[str]:
    """Name every file of a folder but the manifest.

    Names that begin with a dot are skipped, as model loaders do, except weights and code.
    """
    return set(_walk(folder)) - {MANIFEST}


def inside(folder: Path, name: str, root: Path) -> Path:
    """Return the path of a file, links followed. Raises ManifestError if it is missing or out of `root`."""
    try:
        path = (folder / name).resolve()
        is_file, is_loop = path.is_file(), path.is_symlink()
    except (OSError, RuntimeError):  # a name too long; before Python 3.13 a loop of links too
        raise ManifestError(f"{shown(name)} cannot be read") from None
    if is_loop:
        raise ManifestError(f"{shown(name)} cannot be read")
    if not path.is_relative_to(root.resolve()):
        raise ManifestError(f"{shown(name)} is a link out of the folder")
    if not is_file:
        raise ManifestError(f"{shown(name)} is missing")
    return path


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex digits. Raises ManifestError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{shown(path.name)} cannot be read ({error.strerror})") from None


def shown(name: str) -> str:
    """Escape a file name so that it stays on one line."""
    return name if name.isprintable() else ascii(name)


def _parse(line: str, number: int) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ManifestError(f"line {number} of {MANIFEST} is not a SHA-256 and a name")
    path = PurePosixPath(found[2])
    if not line.isprintable() or path.is_absolute() or ".." in path.parts or str(path) in (".", MANIFEST):
        raise ManifestError(f"{MANIFEST} lists {shown(found[2])}, which is no file of the folder")
    return str(path), found[1].lower()


def _walk(folder: Path) -> Iterator[str]:
    for at, folders, files in os.walk(folder):
        links = [name for name in folders if Path(at, name).is_symlink()]  # never followed: listed as files
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*files, *links):
            if not name.startswith(".") or name.endswith(LOADED):
                yield Path(at, name).relative_to(folder).as_posix()
