"""The judgements about what is inside an image, on small ones made here."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.containers import contents
from tests.containers.contents import Contents, read

PACKAGES = "opt/tosa-vqa/lib/python3.12/site-packages"
KEY = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"


def image(*files: tuple[str, bytes, int, int], links: tuple[tuple[str, str], ...] = ()) -> Contents:
    """Return an image of files with content, mode and owner, as an engine would export it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, data, mode, uid in files:
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.uid, member.gid = len(data), mode, uid, uid
            if path.endswith("/"):
                member.type = tarfile.DIRTYPE
            tar.addfile(member, io.BytesIO(data))
        for path, target in links:
            member = tarfile.TarInfo(path)
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(member)
    stream.seek(0)
    return read(stream)


def plain(path: str, data: bytes = b"", mode: int = 0o644, uid: int = 0) -> tuple[str, bytes, int, int]:
    return path, data, mode, uid


def test_what_runs_as_somebody_else_is_found() -> None:
    found = image(
        plain("usr/bin/su", mode=0o4755), plain("usr/bin/wall", mode=0o2755), plain("usr/bin/ls", mode=0o755)
    )
    assert contents.setuid(found) == ["usr/bin/su", "usr/bin/wall"]
    assert contents.setuid(image(plain("var/mail/", mode=0o2775))) == []


def test_what_the_user_may_change_is_found() -> None:
    found = image(
        plain("results/", mode=0o755, uid=10001),
        plain("tmp/", mode=0o1777),
        plain("opt/tosa-vqa/.lock", mode=0o666),
        plain("etc/passwd"),
        links=(("bin", "usr/bin"),),
    )
    assert contents.writable(found) == ["results", "opt/tosa-vqa/.lock"]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("etc/x.pem", KEY),
        ("etc/pip.conf", b"[global]"),
        ("root/.netrc", b"machine a login b password c"),
        ("app/settings", b"index = https://user:secret@index.example/simple"),
        (f"{PACKAGES}/service/x.py", b"KEY = 'AKIA" + b"A" * 16 + b"'"),
        ("app/x", b"hf_" + b"a" * 34),
        ("run/secrets/keys", b"alice=secret"),
    ],
)
def test_secrets_are_found(path: str, data: bytes) -> None:
    assert list(contents.secrets(image(plain(path, data)))) == [path]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("etc/ssl/certs/a.pem", b"-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"),
        (f"{PACKAGES}/gevent/tests/keycert.pem", KEY),
        ("usr/share/doc/a/b.md", b"https://user:secret@index.example/simple"),
        ("app/x.py", b"'https://user@index.example' 'http://{user}:{password}@host'"),
        ("run/secrets/empty", b""),
    ],
)
def test_what_only_looks_like_a_secret_is_not_told(path: str, data: bytes) -> None:
    assert contents.secrets(image(plain(path, data))) == {}


@pytest.mark.parametrize(
    "path",
    [
        *("usr/bin/gcc", "usr/bin/x86_64-linux-gnu-gcc-12", "usr/local/bin/uv", "opt/tosa-vqa/bin/pip3.12"),
        *("usr/bin/make", "tmp/.cache/x", "root/.cache/pip/http/a", "var/cache/apt/archives/a.deb"),
        *(
            "var/lib/apt/lists/deb_dists_x_Packages",
            "opt/tosa-vqa/include/site/python3.12/greenlet/greenlet.h",
        ),
    ],
)
def test_tools_caches_and_headers_are_found(path: str) -> None:
    assert contents.tools(image(plain(path))) == [path]


@pytest.mark.parametrize(
    "path",
    [f"{PACKAGES}/torch/include/a.h", "opt/tosa-vqa/bin/tosa-vqa", "usr/bin/ldd", "var/lib/apt/lists/lock"],
)
def test_what_belongs_to_packages_is_no_tool(path: str) -> None:
    assert contents.tools(image(plain(path))) == []


def test_only_what_was_added_to_a_base_counts() -> None:
    base = image(plain("usr/bin/pip"), plain("etc/a", b"1"))
    assert list(image(plain("usr/bin/pip"), plain("etc/a", b"2"), plain("b")).since(base).entries) == [
        "etc/a",
        "b",
    ]


def test_packages_are_read() -> None:
    found = image(
        plain(f"{PACKAGES}/typing_extensions-4.16.0.dist-info/METADATA"), plain(f"{PACKAGES}/torch/a.py")
    )
    assert contents.packages(found) == {"typing-extensions": "4.16.0"} and contents.python(found) == "3.12"


def test_packages_of_debian_without_a_licence_are_found() -> None:
    found = image(plain("usr/share/doc/libc6/copyright"), links=(("usr/share/doc/libgcc-s1", "gcc-12-base"),))
    assert contents.without_licence(found, ["libc6", "libgcc-s1", "mine"]) == ["mine"]


def compiled(time: bytes, code: bytes, flags: bytes = bytes(4)) -> tuple[str, bytes, int, int]:
    return plain("a.pyc", b"\xa7\x0d\x0d\x0a" + flags + time + b"size" + code)


def test_two_images_differ_in_anything_but_times() -> None:
    one = image(compiled(b"1111", b"code"), plain("b", b"1"), plain("c"), plain("d", mode=0o755))
    other = image(compiled(b"2222", b"code"), plain("b", b"2"), plain("d"))
    assert contents.differences(one, other) == ["b", "c", "d"]
    assert contents.differences(image(compiled(b"1111", b"1")), image(compiled(b"1111", b"2"))) == ["a.pyc"]
    hashed = (image(compiled(each, b"code", b"\1\0\0\0")) for each in (b"1111", b"2222"))
    assert contents.differences(*hashed) == ["a.pyc"], "what is not a time counts"
