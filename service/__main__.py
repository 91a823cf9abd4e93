"""The command `tosa-vqa`, also `python -m service`: where a package is missing, it says what to install."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = (
    *("cachetools", "click", "fastapi", "h11", "huggingface_hub", "isal", "llguidance", "numpy", "PIL"),
    *("prometheus_client", "pydantic", "pydantic_settings", "python_multipart", "rich", "safetensors"),
    *("simplejpeg", "structlog", "torchvision", "transformers", "uvicorn"),
)
"""What the extra `serve` installs and some command imports, those of `depth` and `vlm` included."""


def main() -> None:
    """Run the command line; without the extra `serve`, end with exit code 2 and one sentence."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"error: tosa-vqa needs {', '.join(missing)}: pip install 'tosa-vqa[serve]'", file=sys.stderr)
        sys.exit(2)
    from service.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
