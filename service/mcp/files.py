"""The pictures that an agent names: a path that the server may read, or the file itself as a data: URI."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcp.server.mcpserver.exceptions import ToolError

MAX_FILE_BYTES = 64 * 2**20
SHOWN_CHARS = 200


@dataclass(frozen=True)
class Files:
    """Read files below these folders only; None allows every file that the user of this process may read."""

    folders: tuple[Path, ...] | None = None

    @classmethod
    def below(cls, folders: Sequence[Path]) -> Files:
        """Allow what is below these folders, links followed."""
        return cls(tuple(folder.resolve() for folder in folders))

    def read(self, source: str, field: str) -> bytes:
        """Return the bytes of a file. Raises ToolError with what to send in its place."""
        if source[:5].lower() == "data:":
            return _decoded(source, field)
        if "://" in source:
            raise ToolError(f"{field} is an address, and this server fetches nothing: {self._send()}")
        path, shown = Path(source), source[:SHOWN_CHARS]
        try:
            if self.folders is not None and not self._allows(path):
                raise ToolError(f"{field}: this server may not read {shown}: {self._send()}")
            if not path.is_file():
                raise ToolError(f"{field}: there is no file {shown}")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ToolError(f"{field}: {shown} has more than {MAX_FILE_BYTES} bytes")
            return path.read_bytes()
        except (OSError, ValueError) as error:  # of a path that cannot be, such as a very long one
            reason = getattr(error, "strerror", None) or error
            raise ToolError(f"{field}: {shown}: {reason}") from None

    def _allows(self, path: Path) -> bool:
        found = path.resolve()
        return any(found.is_relative_to(folder) for folder in self.folders or ())

    def _send(self) -> str:
        inline = "send the file as data:image/png;base64,..."
        if not self.folders:
            return inline if self.folders is None else f"{inline}, or start it with --files FOLDER"
        return f"{inline}, or a path below {', '.join(map(str, self.folders))}"


def _decoded(uri: str, field: str) -> bytes:
    head, comma, data = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ToolError(f"{field} must be data:<media type>;base64,<data>")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise ToolError(f"{field} is not valid base64") from None
