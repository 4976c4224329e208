"""Can the tests fail? Change the program in one place at a time and run the tests that are concerned.

    python benchmarks/mutations.py [WORD ...]       # those whose name has one of the words; without: all

Each line of mutations.tsv beside this file is a change: name, file, text that is there once, what replaces it, tests.
The program is copied, changed and tested in a folder of its own. Results are kept in docs/results/mutations.json,
where a change that was caught in the same program text is not tried again.
"""

import csv
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE, RESULTS = Path(__file__).with_name("mutations.tsv"), ROOT / "docs" / "results" / "mutations.json"
PARTS = ("main.py", "pyproject.toml", "README.md", "prl_keras", "tuning", "tests")


def mutated(folder: Path, file: str, old: str, new: str) -> str:
    """Change one place of the copy in `folder`; return the hash of the text before."""
    path = folder / file
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise SystemExit(f"{file} has {text.count(old)} places {old!r}; mend the line of mutations.tsv")
    path.write_text(text.replace(old, new), encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tests_fail(folder: Path, tests: str) -> bool:
    """Raises SystemExit if they cannot run at all: that would not be the tests' merit."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(tests)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest {tests} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-500:]}")
    return done.returncode == 1


def main(words: list[str]) -> None:
    with TABLE.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for row in rows:
        if words and not any(word in row["name"] for word in words):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            for part in PARTS:
                copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
                copy(ROOT / part, Path(temporary) / part)
            old, new = (row[key].encode().decode("unicode_escape") for key in ("old", "new"))
            digest = mutated(Path(temporary), row["file"], old, new)
            known = results.get(row["name"], {})
            if not known.get("caught") or (known["text"], known["new"]) != (digest, row["new"]):
                caught = tests_fail(Path(temporary), row["tests"])
                results[row["name"]] = {"text": digest, **row, "caught": caught}
                RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{'caught  ' if results[row['name']]['caught'] else 'SURVIVED'} {row['name']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
