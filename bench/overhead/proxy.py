"""The shipped HAProxy in front of one server, with a name server that says where it is."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bench.load.serving import ROOT, free_port, wait_until_ready

CONFIGURATION = ROOT / "docker" / "proxy" / "haproxy.cfg"
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


class NameServer:
    """Answer every DNS question for an IPv4 address with `addresses`."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        with suppress(OSError):
            while (received := self._socket.recvfrom(4096))[0]:
                question, client = received
                self._socket.sendto(self._reply(question), client)

    def _reply(self, question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        is_a = question[end - 4 : end - 2] == b"\0\1"
        found = list(self.addresses) if is_a else []
        head = question[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4)
        return head + question[12:end] + b"".join(record + socket.inet_aton(each) for each in found)

    def close(self) -> None:
        """Stop answering."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def proxied(upstream: str) -> Iterator[str]:
    """Run the proxy in front of a server on this machine; yield the address of the proxy."""
    assert HAPROXY, "haproxy is not installed"
    names, port = NameServer(["127.0.0.1"]), free_port()
    settings = {
        "PROXY_BIND": f"127.0.0.1:{port}",
        "PROXY_OWN_BIND": f"127.0.0.1:{free_port()}",
        "PROXY_UPSTREAM": f"service.test:{upstream.rpartition(':')[2]}",
        "PROXY_RESOLVER": f"127.0.0.1:{names.port}",
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [HAPROXY, "-db", "-f", str(CONFIGURATION)],
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(f"{url}/readyz", process, log)
            yield url
        finally:
            process.kill()
            process.wait()
            names.close()


def version() -> str | None:
    """Return the version of the installed proxy."""
    if HAPROXY is None:
        return None
    version = subprocess.run([HAPROXY, "-v"], capture_output=True, text=True, check=True).stdout
    return version.split()[2]
