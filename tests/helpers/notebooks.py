"""Notebooks as they are stored and as they run: outputs are compared by their structure.

`python -m tests.helpers.notebooks first_steps` executes a notebook and stores its outputs, pictures
with few colours; without names, all of them.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

ANALYSIS = Path(__file__).resolve().parents[2] / "analysis"
MOST_BYTES = 200_000
AGAIN = "store it again with `python -m tests.helpers.notebooks NAME`"
COLOURS = 64
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SHOWN = ("image/png", "text/html")  # what the reader sees of an output


def check_notebook(name: str, most_seconds: int = 60) -> list[Any]:
    """Execute a notebook of `analysis` and hold its stored outputs against those of now.

    Stored outputs must be those of one pass from top to bottom, without errors, of the same
    structure (see `structure`), and small. Returns the cells of code, executed.
    """
    import nbformat

    file = ANALYSIS / f"{name}.ipynb"
    assert file.stat().st_size < MOST_BYTES, f"{file} is too large: {AGAIN}"
    book = nbformat.read(file, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), name
    stored = [structure(cell) for cell in code]
    execute(book, most_seconds)
    assert [structure(cell) for cell in code] == stored, f"{file}: {AGAIN}"
    return code


def execute(book: Any, most_seconds: int) -> None:
    """Run all cells in order, in the folder of the notebooks."""
    import nbclient

    where = {"metadata": {"path": str(ANALYSIS)}}
    how = {"timeout": most_seconds, "resources": where, "record_timing": False}
    nbclient.NotebookClient(book, **how).execute()


def store(name: str) -> None:
    """Execute a notebook and write it with its outputs."""
    import nbformat

    file = ANALYSIS / f"{name}.ipynb"
    book = nbformat.read(file, as_version=4)
    execute(book, 600)
    for cell in book.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = with_few_colours(data["image/png"])
    book.metadata = METADATA
    nbformat.write(book, file)


def with_few_colours(picture: str) -> str:
    """A png in base64, with a palette."""
    from PIL import Image

    small = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def structure(cell: Any) -> list[tuple]:
    """What a cell of code shows: printed text, tables, pictures, errors, each kind once."""
    found: dict[tuple, None] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            found.setdefault(("printed", output.name))
        elif output.output_type == "error":
            found.setdefault(("error", output.ename))
        else:
            data = output.data
            kinds = tuple(kind for kind in SHOWN if kind in data)
            found.setdefault((output.output_type, kinds or tuple(sorted(data))))
    return list(found)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(file.stem for file in ANALYSIS.glob("*.ipynb")):
        store(name)
