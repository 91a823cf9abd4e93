"""The root file system of an image as a folder."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.containers.engine import Engine


@contextmanager
def unpacked_image(engine: Engine, image: str) -> Iterator[Path]:
    """Mount an image where the engine can, else export a container of it into a temporary folder."""
    if engine.is_podman:
        yield Path(engine("image", "mount", image))
        engine("image", "unmount", image)
        return
    container = engine("create", image)
    try:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "image.tar")
            engine("export", "--output", str(archive), container, timeout_s=600)
            root = Path(folder, "root")
            root.mkdir()
            subprocess.run(["tar", "-C", root, "-xf", archive], check=True)
            yield root
    finally:
        engine("rm", container)
