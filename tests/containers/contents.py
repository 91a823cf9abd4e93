"""What is inside an image: read from the tar that `docker export` and `podman export` write, and judged."""

from __future__ import annotations

import hashlib
import re
import stat
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

OURS = 10001
"""The user that containers run as."""
WRITABLE = ("results", "language")
"""The folders that belong to it."""
SECRETS = {
    "a private key": rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{16}",
    "a password in an address": rb"https?://[^\s/:@{}<>$%'\"*]{2,}:[^\s/:@{}<>$%'\"*]{2,}@[\w.-]+",
    "a key of a cloud": rb"\bAKIA[0-9A-Z]{16}\b",
    "a token": rb"\b(?:hf|ghp|gho|glpat|pypi|sk)[_-][A-Za-z0-9]{34,}\b",
}
PLACES = re.compile(
    r"(^|/)(\.netrc|\.git-credentials|\.pypirc|\.env|\.docker/config\.json|\.ssh/.+|id_(rsa|ed25519|ecdsa))$"
    r"|^run/secrets/.+|^(etc/pip\.conf|root/\.config/.+)$"
)
OF_OTHERS = re.compile(
    r"/(site|dist)-packages/(?!(tosa|vlm|depth|service|tosa_vqa-[^/]+)(/|$))|^usr/share/doc/"
)
"""Packages of others, which are public and have keys for their tests, and their manuals."""
LARGEST = 2**20
"""Bytes: files above hold no text that a person wrote."""
TOOLS = re.compile(
    r"(^|/)s?bin/([\w-]+-)?(gcc|g\+\+|cc|c\+\+|cpp|clang|clang\+\+|ld|as|make|cmake|ninja|rustc|cargo|go|nvcc"
    r"|git|curl|wget|pip[\d.]*|uvx?|hatchling|apt-build)(-[\d.]+)?$"
)
CACHES = re.compile(
    r"(^|/)(\.cache|pip/cache|uv/cache|\.uv_cache)/.+|^var/cache/apt/.+\.(deb|bin)$|^var/lib/apt/lists/[^/]+_.+"
)
HEADERS = re.compile(r"^(usr|usr/local|opt/[^/]+)/include/.+\.(h|hpp)$")
INSTALLED = re.compile(
    r"^opt/tosa-vqa/lib/python(?P<python>[\d.]+)/site-packages/(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info/METADATA$"
)
STATUS = "var/lib/dpkg/status"
TIMES = slice(8, 12)
"""Where compiled Python has the time of its source."""


@dataclass(frozen=True)
class Entry:
    """A file, folder or link; `digest` is of its content without times, or the target of a link."""

    mode: int
    uid: int
    gid: int
    digest: str
    secrets: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass
class Contents:
    """Everything in a root file system by its path, without the first slash."""

    entries: dict[str, Entry] = field(default_factory=dict)
    status: str = ""
    """What dpkg has installed."""

    @property
    def texts(self) -> set[str]:
        return {path for path, each in self.entries.items() if each.is_file}

    def since(self, base: Contents) -> Contents:
        """Return what is new or other than in a base."""
        return Contents({path: each for path, each in self.entries.items() if base.entries.get(path) != each})


def read(stream: IO[bytes]) -> Contents:
    """Read a tar while it comes."""
    found = Contents()
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = member.name.removeprefix("./").strip("/")
            data = b""
            if member.isreg() and (file := tar.extractfile(member)) is not None:
                data = file.read()
            if path == STATUS:
                found.status = data.decode()
            found.entries[path] = Entry(
                member.mode | _kind(member),
                member.uid,
                member.gid,
                _digest(path, data) if member.isreg() else member.linkname,
                tuple(secrets_in(path, data)),
            )
    return found


def _kind(member: tarfile.TarInfo) -> int:
    if member.isdir():
        return stat.S_IFDIR
    if member.issym():
        return stat.S_IFLNK
    return stat.S_IFREG if member.isreg() or member.islnk() else stat.S_IFCHR


def _digest(path: str, data: bytes) -> str:
    if path.endswith(".pyc") and data[4:8] == bytes(4):
        data = data[: TIMES.start] + data[TIMES.stop :]
    return hashlib.sha256(data).hexdigest()


def secrets_in(path: str, data: bytes) -> list[str]:
    """Say why a file looks like a secret."""
    if not data or OF_OTHERS.search(path):
        return []
    reasons = ["its name"] if PLACES.search(path) else []
    if len(data) <= LARGEST and b"\0" not in data:
        reasons += [name for name, pattern in SECRETS.items() if re.search(pattern, data)]
    return reasons


def setuid(found: Contents) -> list[str]:
    """Return the files that run as somebody else."""
    return [path for path, each in found.entries.items() if each.is_file and each.mode & 0o6000]


def secrets(found: Contents) -> dict[str, tuple[str, ...]]:
    """Return the files that hold what nobody else should know, or look so."""
    return {path: each.secrets for path, each in found.entries.items() if each.secrets}


def writable(found: Contents) -> list[str]:
    """Return what the user of the container may change in the image itself."""
    return [
        path
        for path, each in found.entries.items()
        if (each.is_file or each.is_folder)
        and (OURS in (each.uid, each.gid) or (each.mode & 0o002 and not each.mode & stat.S_ISVTX))
    ]


def tools(found: Contents) -> list[str]:
    """Return compilers, installers, caches and headers outside of packages."""
    patterns = (TOOLS, CACHES, HEADERS)
    return [path for path in found.entries if any(pattern.search(path) for pattern in patterns)]


def packages(found: Contents) -> dict[str, str]:
    """Return the versions of the Python packages that are installed."""
    matches = filter(None, map(INSTALLED.match, found.entries))
    return {re.sub(r"[-_.]+", "-", match["name"]).lower(): match["version"] for match in matches}


def python(found: Contents) -> str:
    """Return the version of Python that they are installed for, such as 3.12."""
    return {match["python"] for match in filter(None, map(INSTALLED.match, found.entries))}.pop()


def without_licence(found: Contents, names: Iterable[str]) -> list[str]:
    """Return the packages of Debian without a text of their licence; a folder may be a link to another's."""
    docs = {name: f"usr/share/doc/{name}" for name in names}
    links = {path for path, each in found.entries.items() if stat.S_ISLNK(each.mode)}
    return [name for name, doc in docs.items() if not {doc, f"{doc}/copyright"} & (found.texts | links)]


def differences(one: Contents, other: Contents) -> list[str]:
    """Return the paths that differ in anything but times."""
    paths = one.entries.keys() | other.entries.keys()
    return sorted(path for path in paths if one.entries.get(path) != other.entries.get(path))
