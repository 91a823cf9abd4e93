"""Resolve a checkpoint's name (embedded, a folder, a hub id) and read its files; every error has a code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

import torch

from vlm.checkpoint_files.formats import WEIGHT_FILES, WHOLE, damaged_weights, no_config, no_weights
from vlm.checkpoint_files.manifest import (
    MANIFEST,
    ManifestError,
    digest_of,
    read_manifest,
    refuse_unlisted,
    shown,
    verify,
)

T = TypeVar("T")
CodedError = Callable[[str, str], Exception]  # code, sentence


@dataclass(frozen=True)
class CheckpointReader:
    """Read checkpoints of one kind: the embedded ones, the files beside the weights, the error to raise.

    Files are verified against the manifest: settings when a checkpoint is found, the rest before weights
    load. Error codes: model_not_found, no_safetensors, broken_checkpoint.
    """

    embedded: Mapping[str, Path]
    settings_files: tuple[str, ...]
    error: CodedError

    def find(self, source: str, require_manifest: bool = False) -> tuple[Path, str | None]:
        """Return the folder and hub commit; of a hub id only the settings are downloaded yet.

        An embedded checkpoint must have a manifest, others only if `require_manifest`.
        """
        folder, commit = self._locate(source)
        digests = self._digests(source, folder)
        if digests is None and (require_manifest or source in self.embedded):
            raise self.broken(source, f"it has no {MANIFEST}")
        settings = [name for name in digests or () if self._is_settings(name)]
        self._verify(source, folder, commit, digests or {}, settings)
        self._refuse_code(source, folder)
        return folder, commit

    def _locate(self, source: str) -> tuple[Path, str | None]:
        if source in self.embedded:
            if not self.embedded[source].is_dir():
                message = f"the embedded checkpoint {source} is missing from this installation"
                raise self.error("model_not_found", message)
            return self.embedded[source], None
        if source and Path(source).is_dir():
            return Path(source), None
        if source and Path(source).is_file():
            raise self._is_a_file(source)
        if source.count("/") != 1 or source.startswith((".", "/", "~")):
            known = f"an embedded checkpoint ({', '.join(self.embedded)})"
            message = f"{source} is not a folder, not {known} and not a hub id (owner/name)"
            raise self.error("model_not_found", message)
        folder = self._download(source, [*self.settings_files, MANIFEST])
        return folder, folder.name

    def fetch_weights(self, source: str, folder: Path, commit: str | None, whole: str = WHOLE) -> str:
        """Download the weights of a hub commit, verify them if there is a manifest, return the revision.

        A checkpoint without safetensors is refused. The revision is the hub commit, else `weights_hash`.
        `whole`: the file of weights that are not sharded.
        """
        if commit is not None:
            self._download(source, WEIGHT_FILES, commit)
        digests = self._digests(source, folder)
        if digests is not None:
            rest = [name for name in digests if not self._is_settings(name)]
            # Of a hub id, only the loaded files were downloaded.
            here = [name for name in rest if commit is None or fnmatch(name, WEIGHT_FILES)]
            self._verify(source, folder, commit, digests, here)
            self._or_differs(source, lambda: refuse_unlisted(folder, digests))
        reason = no_weights([path.name for path in folder.iterdir()])
        if reason is not None:
            raise self.error("no_safetensors", f"{source} {reason}")
        damage = damaged_weights(folder, whole)
        if damage is not None:
            raise self.broken(source, damage)
        return commit or self._or_differs(source, lambda: weights_hash(folder, digests or {}))

    def read_json(self, source: str, path: Path) -> dict[str, Any]:
        """Read a JSON object."""
        if not path.is_file():
            raise self._missing(source, path)
        raw = self.or_broken(source, lambda: json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(raw, dict):
            raise self.broken(source, f"{path.name} is not a JSON object")
        return raw

    def or_broken(self, source: str, read: Callable[[], T]) -> T:
        """Read part of a checkpoint; any exception inside transformers becomes an error of the checkpoint."""
        try:
            return read()
        except Exception as error:
            if isinstance(self.error, type) and isinstance(error, self.error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise self.broken(source, reason) from error

    def broken(self, source: str, reason: str) -> Exception:
        """Make the error of a checkpoint that cannot be loaded."""
        return self.error("broken_checkpoint", f"{source} cannot be loaded: {reason}")

    def _missing(self, source: str, path: Path) -> Exception:
        if path.name != "config.json":
            return self.broken(source, f"{path.name} is missing")
        names = [each.name for each in path.parent.iterdir()]
        if any(name.endswith(".gguf") for name in names):
            return self.error("no_safetensors", f"{source} {no_weights(names)}")
        return self.broken(source, no_config(path.parent))

    def _is_a_file(self, source: str) -> Exception:
        if source.endswith(".safetensors"):
            return self.error("model_not_found", f"{source} is a file: name the folder that holds it")
        reason = no_weights([Path(source).name])
        return self.error("no_safetensors", f"{source} is a file, not a folder: it {reason}")

    def _is_settings(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.settings_files)

    def _digests(self, source: str, folder: Path) -> dict[str, str] | None:
        return self._or_differs(source, lambda: read_manifest(folder))

    def _verify(
        self,
        source: str,
        folder: Path,
        commit: str | None,
        digests: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        root = folder if commit is None else folder.parent.parent  # the hub's cache links to its blobs
        self._or_differs(source, lambda: verify(folder, digests, names, root))

    def _or_differs(self, source: str, compare: Callable[[], T]) -> T:
        try:
            return compare()
        except ManifestError as error:
            raise self.broken(source, str(error)) from None

    def _refuse_code(self, source: str, folder: Path) -> None:
        """Refuse settings that name code: it is never run, so the model would not be the published one."""
        for path in sorted(folder.glob("*config*.json")):
            try:
                raw = json.loads(path.read_bytes())
            except (OSError, ValueError):  # loading reports it if this file is needed
                continue
            if _names_code(raw):
                reason = (
                    f"{shown(path.name)} asks for code of its own (auto_map), which is never run: take a "
                    "conversion to the classes of transformers (often named ...-hf), or delete auto_map if "
                    "transformers itself has the model type"
                )
                raise self.broken(source, reason)

    def _download(self, source: str, patterns: str | list[str], revision: str | None = None) -> Path:
        """Fetch files of a hub id into the ordinary cache; the folder's name is the commit."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

        try:
            return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        except (RepositoryNotFoundError, HFValidationError) as error:
            message = f"the hub has no model {source}, or it needs a login"
            raise self.error("model_not_found", message) from error
        except Exception as error:
            kind = type(error).__name__
            message = f"{source} is not in the local cache and could not be downloaded ({kind})"
            raise self.error("model_not_found", message) from error


def weights_hash(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """Return 16 hex digits of the SHA-256 of a folder's weights.

    `known`: the SHA-256 of files by name, as hex digits, so that no file is read twice. Raises ManifestError.
    """
    known, digest = known or {}, hashlib.sha256()
    for path in sorted(folder.glob(WEIGHT_FILES)):
        digest.update(bytes.fromhex(known.get(path.name) or digest_of(path)))
    return digest.hexdigest()[:16]


def _names_code(raw: Any) -> bool:
    if isinstance(raw, dict):
        return bool(raw.get("auto_map")) or any(map(_names_code, raw.values()))
    return isinstance(raw, list) and any(map(_names_code, raw))


def available_device(device: str | torch.device, error: CodedError) -> torch.device:
    """Return the torch device of that name, or raise device_unavailable."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise error(
            "device_unavailable",
            f"{device} is no device that torch knows, such as cpu, cuda or cuda:1; for several, there is "
            "device_map",
        ) from None
    if found.type == "cuda" and not torch.cuda.is_available():
        message = f"device {found} was asked for, but torch finds no CUDA device"
        raise error("device_unavailable", message)
    try:
        torch.ones(1, device=found).item()
    except Exception:  # another one for each kind of device
        raise error(
            "device_unavailable", f"device {found} was asked for, but torch cannot use it here"
        ) from None
    return found


def three(value: float | list[float]) -> tuple[float, float, float]:
    """Expand one number, or three, to one each for red, green and blue."""
    red, green, blue = value if isinstance(value, list) else [value] * 3
    return float(red), float(green), float(blue)
