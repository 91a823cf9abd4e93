"""python bench/overhead/launch.py LOOP TREE MODULE ...: run a module of a checkout on an event loop.

asyncio: as if uvloop were not installed. uvloop: as the environment is. Imports nothing of this repository,
because TREE may be an earlier state of it.
"""

import os
import runpy
import sys


def main() -> None:
    loop, tree, module, *rest = sys.argv[1:]
    if loop == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # an import of it fails
    os.chdir(tree)
    sys.path[0] = tree
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
