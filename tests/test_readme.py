"""What the README says still works."""

import re
from pathlib import Path

import pytest

from prl_keras.cli import COMMANDS, parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT, PARTS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs() -> None:
    names = run_example(SHORT.replace("freeze=True)", "freeze=True, epochs=1)"), "seed=0)", "seed=0, epochs=1)")
    assert names["logits"].shape == (len(names["data"].test), 10)


@pytest.mark.slow
@pytest.mark.usefixtures("whole_network")
def test_the_example_of_parts_put_together_by_hand_runs() -> None:
    names = run_example(PARTS, "epochs=25", "epochs=1")
    assert names["features"].shape == (len(names["data"].test), 512)


def run_example(code: str, long: str, short: str) -> dict:
    assert long in code
    few = 'load_dataset("digits", samples_per_class=26, image_size=16)'  # as many as a batch of the paper's
    names: dict = {}
    exec(code.replace(long, short).replace('load_dataset("digits")', few), names)
    return names


def test_ci_runs_the_commands_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first, tests = re.findall(r"^    (\S*python3? -m venv.*|\S*ruff check.*)$", README, re.MULTILINE)
    assert first.split(" && .venv/bin/python main.py")[0] in ci
    assert tests in ci


def test_every_command_line_in_the_documents_is_accepted() -> None:
    lines = []
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        lines += re.findall(
            r"^    (?:\S+=\S+ +)*(?:.*&& )?\S*python main\.py ([^#&\n]+)",
            file.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    assert len(lines) > 12
    for line in lines:
        words = line.replace("--variant V", "--variant query").split()
        assert words[0] in COMMANDS
        assert parse(words) is not None, line
