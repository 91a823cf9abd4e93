"""The command `tosa-vqa`, also `python -m service`: where a package is missing, it says what to install."""

from __future__ import annotations

import sys

from service.needed import missing, sentence


def main() -> None:
    """Run the command line; without the extra `serve`, end with exit code 2 and one sentence."""
    packages = missing()
    if packages:
        print(f"error: {sentence('tosa-vqa', packages)}", file=sys.stderr)
        sys.exit(2)
    from service.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
