"""Run the notebooks of examples/ with a service of their own, and write them as pages of the documentation.

python -m bench.notebooks, in an environment with the extra `notebooks`; make notebooks does both. Outputs are
kept as text and PNG, without times of execution and without paths of this machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples import demo

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "examples" / "notebooks"
PAGES = ROOT / "docs" / "notebooks"
ADDRESS = "http://127.0.0.1:8000"
"""What the notebooks name; a service on a free port takes its place while they run."""
KEPT = ("image/png", "text/plain")
TIMEOUT_S = 600
MEASURED = "measured"
"""Tag of cells whose outputs differ from run to run."""

Notebook = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """A notebook as Markdown, and the pictures beside it by their names."""

    text: str
    pictures: Mapping[str, bytes]


def names() -> list[str]:
    """Name the notebooks."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def read(name: str) -> Notebook:
    """Read a notebook as it is committed."""
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def digest(notebook: Notebook) -> str:
    """Return a digest of what is run: the source of every cell, in order."""
    cells = [[cell["cell_type"], _source(cell)] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def outputs(notebook: Notebook) -> list[list[tuple[str, str]]]:
    """Return the texts and the kinds of the pictures of each cell of code that is not tagged as measured."""
    return [
        [(kind, data if kind == "text/plain" else "") for kind, data in _shown(cell)]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and MEASURED not in cell["metadata"].get("tags", ())
    ]


def executed(name: str, address: str) -> Any:
    """Run a notebook against a service and return it with its outputs. Raises CellExecutionError."""
    import nbformat  # pyright: ignore[reportMissingImports]  # of the extra notebooks
    from nbclient import NotebookClient  # pyright: ignore[reportMissingImports]

    path = NOTEBOOKS / f"{name}.ipynb"
    notebook, running = (nbformat.read(path, as_version=4) for _ in range(2))
    for cell in running.cells:
        cell.source = cell.source.replace(ADDRESS, address)
    place = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(running, timeout=TIMEOUT_S, kernel_name="python3", resources=place).execute()
    for cell, ran in zip(notebook.cells, running.cells, strict=True):
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        if cell.cell_type == "code":
            cell.execution_count = ran.execution_count
            cell.outputs = _cleaned(ran.outputs)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "executed": digest(notebook)}
    return notebook


def rendered(name: str, notebook: Notebook) -> Page:
    """Write a notebook as a page of the documentation."""
    parts, pictures = list[str](), dict[str, bytes]()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append(_source(cell))
            continue
        parts.append(f"<!-- not run: the notebook runs it -->\n```python\n{_source(cell)}\n```")
        for kind, data in _shown(cell):
            if kind == "text/plain":
                parts.append(f"```text\n{data.rstrip()}\n```")
                continue
            picture = f"{name}-{len(pictures) + 1}.png"
            pictures[picture] = base64.b64decode(data)
            parts.append(f"![What this cell draws]({picture})")
    source = f"examples/notebooks/{name}.ipynb"
    head, body = parts[0].partition("\n")[::2]
    note = f"This page is the notebook `{source}`, as it was run. `make notebooks` runs it again."
    return Page("\n\n".join([head, note, body.strip(), *parts[1:]]) + "\n", pictures)


def write(name: str, notebook: Any) -> None:
    """Write a notebook with its outputs, and its page."""
    import nbformat  # pyright: ignore[reportMissingImports]  # of the extra notebooks

    nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")
    page = rendered(name, read(name))
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.glob(f"{name}-*.png"):
        old.unlink()
    (PAGES / f"{name}.md").write_text(page.text, encoding="utf-8")
    for picture, data in page.pictures.items():
        (PAGES / picture).write_bytes(data)


@contextmanager
def serving() -> Iterator[str]:
    """Run a service that waits as long as a busy machine needs; yield its address."""
    os.environ["TOSA_VQA_REQUEST_TIMEOUT_S"] = str(TIMEOUT_S)
    demo.START_TIMEOUT_S = TIMEOUT_S
    with demo.server() as address:
        yield address


def main() -> int:
    with serving() as address:
        for name in sys.argv[1:] or names():
            write(name, executed(name, address))
            print(f"ran {name}")
    return 0


def _source(cell: Mapping[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _cleaned(outputs: Sequence[Any]) -> list[Any]:
    """Return what is kept of the outputs of a cell: stdout in one piece, pictures, and values as text."""
    kept = list[Any]()
    for output in outputs:
        if output.output_type != "stream":
            output.data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
            if "image/png" in output.data:
                output.data.pop("text/plain", None)
            output.metadata = {}
        elif output.name != "stdout":
            continue
        elif kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
            continue
        kept.append(output)
    return kept


def _shown(cell: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the outputs of a cell as kinds and data, in order."""
    for output in cell["outputs"]:
        found = {"text/plain": output["text"]} if output["output_type"] == "stream" else output["data"]
        for kind in KEPT:
            if kind in found:
                yield kind, _joined(found[kind])
                break


def _joined(text: str | Sequence[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


if __name__ == "__main__":
    sys.exit(main())
