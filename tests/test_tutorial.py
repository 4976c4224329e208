"""The notebook for newcomers: it runs, and its committed outputs are those of its cells."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from tutorial import NOTEBOOK, executed

from prl_keras.cli import parse

CELLS = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
MOST_BYTES = 500_000  # more makes a clone slow


def texts(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def commands(cells: list[nbformat.NotebookNode]) -> list[list[str]]:
    """What `main` is called with."""
    calls = [node for cell in cells for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [ast.literal_eval(call.args[0]) for call in calls if getattr(call.func, "id", "") == "main"]


def test_its_commands_are_accepted() -> None:
    assert [words[0] for words in commands(CELLS)] == ["data", "pretrain", "finetune", "report", "export"]
    for words in commands(CELLS):
        parse(words)


def test_its_outputs_are_there_of_one_run_and_of_no_machine() -> None:
    assert [cell.execution_count for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert not re.search(r"/(home|root|tmp|Users|work)/|[Ww]arning|Traceback|u001b", text)


@pytest.mark.slow
def test_it_runs_in_an_empty_folder_and_says_what_it_said(tmp_path: Path) -> None:
    now = [cell for cell in executed(tmp_path).cells if cell.cell_type == "code"]
    for cell, committed in zip(now, CELLS, strict=True):
        kinds = [[output.output_type for output in each.outputs] for each in (cell, committed)]
        assert kinds[0] == kinds[1], cell.source
        said = [re.sub(r"[\d.,:]+", "", texts(each)).splitlines() for each in (cell, committed)]
        assert said[0][-1:] == said[1][-1:]
        begins = [[line.split()[:2] for line in lines] for lines in said]
        assert begins[0] == begins[1]
    assert (tmp_path / "saved_models" / "classifier" / "export" / "savedmodel").is_dir()
