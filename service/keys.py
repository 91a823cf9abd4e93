"""API keys. Only digests are kept, so that no secret can leak."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.errors import ServiceError
from service.settings import Settings

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SECRET = re.compile(r"[!-~]{1,512}")  # what a header can carry without quotes
HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")


class KeyRing:
    """Identify callers by the digests of their secrets; without keys, no key is required."""

    def __init__(self, digests: Mapping[str, bytes]) -> None:
        self._digests = dict(digests)

    @classmethod
    def of(cls, settings: Settings) -> KeyRing:
        """Read TOSA_VQA_API_KEYS and TOSA_VQA_API_KEYS_FILE, one key per line, # for remarks.

        Raises ValueError, which names a place and never what stands there: for what is not
        name=secret or name=sha256:<hex>, for a name or a secret that comes twice, for a file that cannot be
        read, and for either of them set without a key, since that would open the service.
        """
        digests: dict[str, bytes] = {}
        for place, text in _entries(settings):
            name, digest = _read(place, text)
            if name in digests:
                raise ValueError(f"{place}: this name is taken by an earlier key")
            if digest in digests.values():
                raise ValueError(f"{place}: an earlier key has the same secret")
            digests[name] = digest
        return cls(digests)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all keys, the only values `identify` returns beside None."""
        return tuple(self._digests)

    def identify(self, headers: Mapping[str, str]) -> str | None:
        """Return the name of the key that the headers carry, None where no keys are set.

        Authorization: Bearer and X-API-Key, in any case; what is sent of them must be one and the same key.
        Raises ServiceError (unauthorized).
        """
        if not self._digests:
            return None
        names = {self._name_of(secret) for secret in _sent(headers)}
        name = names.pop() if len(names) == 1 else None
        if name is None:
            raise ServiceError("unauthorized")
        return name

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._digests)})"

    def _name_of(self, secret: str) -> str | None:
        """Compare with every key in constant time, so that timing does not reveal how close a guess was."""
        if not SECRET.fullmatch(secret):
            return None
        digest, found = hashlib.sha256(secret.encode("ascii")).digest(), None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _sent(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():  # of Starlette's headers, repeated ones too
        if name.lower() == "x-api-key":
            yield value.strip()
        elif name.lower() == "authorization":
            scheme, _, secret = value.strip().partition(" ")
            if scheme.lower() == "bearer":  # other schemes are between the client and a proxy
                yield secret.strip()


def _entries(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield where every entry stands, and the entry."""
    if settings.api_keys is not None:
        parts = settings.api_keys.get_secret_value().split(",")
        yield from ((f"TOSA_VQA_API_KEYS, key {at}", part) for at, part in enumerate(parts, 1))
    if settings.api_keys_file is not None:
        lines = list(enumerate(_lines(settings.api_keys_file), 1))
        written = [(at, line) for at, line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not written:
            raise ValueError("TOSA_VQA_API_KEYS_FILE: the file holds no key")
        yield from ((f"TOSA_VQA_API_KEYS_FILE, line {at}", line) for at, line in written)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"TOSA_VQA_API_KEYS_FILE: {error.strerror}") from None
    except UnicodeDecodeError:  # which would show the bytes
        raise ValueError("TOSA_VQA_API_KEYS_FILE: the file is not UTF-8 text") from None


def _read(place: str, text: str) -> tuple[str, bytes]:
    name, _, secret = text.strip().partition("=")
    hashed = HASHED.fullmatch(secret)
    if not NAME.fullmatch(name) or not SECRET.fullmatch(secret):
        raise ValueError(
            f"{place}: not name=secret or name=sha256:<hex>; names are letters, digits, _ . - and secrets "
            "are printed ASCII without spaces"
        )
    if secret.startswith("sha256:") and not hashed:
        raise ValueError(f"{place}: behind sha256: stand 64 hexadecimal digits")
    return name, bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(secret.encode("ascii")).digest()
