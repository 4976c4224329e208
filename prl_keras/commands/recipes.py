"""`python main.py recipes`: what each recipe decides, side by side."""

from rich.table import Table
from rich.text import Text

from prl_keras.config import Recipes
from prl_keras.config.training import BASELINES
from prl_keras.recipes import DECIDING, NAMES, RECIPES
from prl_keras.screen.console import console

_USUAL = ("query", "prl", "resnet18")


def run(options: Recipes) -> None:
    kinds = _USUAL if options.kind is None else (options.kind,)
    for kind in kinds:
        _show(kind)
    console.print("-: left to the loss or to the size of the images")
    console.print("\nNext:\n  python main.py pretrain --variant prl --recipe strong")
    if others := [kind for kind in RECIPES[NAMES[0]] if kind not in kinds]:
        console.print(f"  python main.py recipes {others[-1]}   # or {', '.join(others[:-1])}")


def _show(kind: str) -> None:
    """A column a record, and its words."""
    records = {_named(name, kind): RECIPES[name][kind] for name in NAMES}
    table = Table(title=f"{kind}: what decides a training, but for data and seed", title_justify="left")
    table.add_column("option", no_wrap=True)
    for names in records:
        table.add_column(names, overflow="fold")
    for field in DECIDING:
        values = [getattr(recipe, field) for recipe in records.values()]
        same = len(set(values)) == 1
        cells = ["-" if value is None else str(value) for value in values]
        option = "least images" if field == "least_images" else f"--{field.replace('_', '-')}"
        table.add_row(option, *(Text(cell, style="dim" if same else "bold") for cell in cells))
    console.print(table)
    for names, recipe in records.items():
        command = _command(names.split(", ")[-1], kind)
        console.print(f"\n{kind}, {names}: {recipe.what}\n  why: {recipe.why}\n  source: {recipe.source}")
        console.print(f"  measured: {recipe.measured}\n  cost: {recipe.cost}\n  command: {command}")
    console.print()


def _named(recipe: str, kind: str) -> str:
    """The names that this record has: PRL-2 is younger than the paper, and "open" is not another one everywhere."""
    return ", ".join(name for name in NAMES if RECIPES[name][kind] == RECIPES[recipe][kind])


def _command(recipe: str, kind: str) -> str:
    if kind == "finetune":
        words = "finetune --encoder latest"
    else:
        words = f"baseline --model {kind}" if kind in BASELINES else f"pretrain --variant {kind}"
    return f"python main.py {words} --recipe {recipe}"
