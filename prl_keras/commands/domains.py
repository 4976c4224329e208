"""`python main.py reproduce --domains`: a table for each domain that is left out, and one page over all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from rich.table import Table

from prl_keras.config import Reproduce
from prl_keras.data import Dataset
from prl_keras.data.domains import domain_names
from prl_keras.errors import InputError
from prl_keras.files import write_json, write_text
from prl_keras.runs.names import usable
from prl_keras.screen.console import console, mean_and_interval, print_end, say
from prl_keras.terminal import quoted

_FEWEST = 2


def run(options: Reproduce, dataset: Dataset, name: str, make_table: Callable[[Reproduce], Path], command: str) -> None:
    """`make_table` makes one of them, or continues it, and gives its folder; `name`: of the folder of all."""
    domains = domain_names([dataset.train, dataset.validation, dataset.test])
    if len(domains) < _FEWEST:
        raise InputError(f"{dataset.label} has one domain, {domains[0]!r}; to leave one out takes two")
    folder, tables = options.runs_dir / name, {}
    for domain, own in zip(domains, _folder_names(domains), strict=True):
        say(f"\nHeld out: {domain} ({len(tables) + 1} of {len(domains)})")
        path = make_table(replace(options, hold_out_domain=domain, name=own, runs_dir=folder))
        tables[domain] = path / "result.json"
    if options.dry_run:
        return
    from prl_keras.experiments.domains import across, as_markdown, sentences

    found = across({domain: json.loads(file.read_text("utf-8")) for domain, file in tables.items()})
    file, page = folder / "domains.json", folder / "domains.md"
    write_json(file, found)
    write_text(page, as_markdown(found, dataset.label, command))
    _show(found)
    for sentence in sentences(found):
        say(sentence)
    first = quoted([str(folder / _folder_names(domains)[0])])
    print_end([page, file], [f"python main.py runs --runs-dir {first}"])


def _folder_names(domains: tuple[str, ...]) -> list[str]:
    """Of each domain one that a run can have on any system; those that look alike get numbers."""
    names = [usable(domain) or "domain" for domain in domains]
    lower = [*(name.lower() for name in names), "latest"]
    taken = {name for name in lower if lower.count(name) == 1 or name == "latest"}
    for place, name in enumerate(names):
        if lower.count(name.lower()) > 1:
            free = (f"{name}-{number}" for number in count(place + 1))
            names[place] = next(each for each in free if each.lower() not in taken)
            taken.add(names[place].lower())
    return names


def _show(found: dict) -> None:
    table = Table(title="Test accuracy in %, each domain left out once; 95 % over trainings", title_justify="left")
    table.add_column("row", overflow="fold")
    for name in (*found["domains"], "mean over domains", "oracle"):
        table.add_column(name, justify="right", overflow="fold")
    for row in found["rows"]:
        each = [*(row["domains"][name] for name in found["domains"]), row["mean"], row["oracle"]]
        table.add_row(row["title"], *(mean_and_interval(figure) if figure else "" for figure in each))
    console.print(table)
