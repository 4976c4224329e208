"""docs/tutorial.ipynb, run in an empty folder; `python tests/tutorial.py` renews the outputs that are committed."""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, by this Python, in `folder`, where its files stay.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run_cells(notebook, sys.executable, folder, variables)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
    text = nbformat.writes(notebook).replace(f"file://{folder}/", "file:///path/to/").replace(f"{folder}/", "")
    return nbformat.reads(text, as_version=4)


def run_cells(notebook: nbformat.NotebookNode, python: str | Path, folder: Path, variables: dict[str, str]) -> None:
    """In a kernel of that Python, which need not be the one that a machine calls python3; the outputs are added."""
    client = NotebookClient(notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = str(python)
    client.execute(env=variables)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as empty:
        nbformat.write(executed(Path(empty)), NOTEBOOK)
    print(f"{NOTEBOOK}: executed")
