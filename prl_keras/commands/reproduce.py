"""`python main.py reproduce`: train every row of the table, then write its report."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from prl_keras.commands import beyond, domains
from prl_keras.commands.cells import train, train_one, train_together
from prl_keras.commands.progress import duration
from prl_keras.config import DataOptions, EpisodeOptions, PictureOptions, Pretrain, Reproduce, check_least, option_words
from prl_keras.data import Dataset, load_dataset
from prl_keras.data.domains import domain_names
from prl_keras.data.request import data_request, open_data
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.experiments import estimate
from prl_keras.experiments.cells import Cell, plan
from prl_keras.experiments.checks import check_cells, check_fingerprints, unused_of
from prl_keras.experiments.table import BEYOND, choose_rows, rows_by_recipe
from prl_keras.files import write_json
from prl_keras.runs import Run, create_run
from prl_keras.runs.leases import LEASES, wait_for
from prl_keras.runs.lifecycle import check_same, run_config, warn_of_versions
from prl_keras.runs.locks import locked, remove_leftovers
from prl_keras.runs.names import check_usable_name, usable
from prl_keras.screen.console import console, is_balanced, print_end, worst_class
from prl_keras.startup import start_keras
from prl_keras.terminal import quoted
from prl_keras.training.fitted import fitted
from prl_keras.training.limits import check_training
from prl_keras.training.precision import with_precision

_PAUSE = 1.0  # seconds
_PAPER_TEST = 100  # images a class
_PAPER_VALIDATION = 0.002  # one image a class: the report trains on all, we keep one to have a curve
# When the command is repeated: what changes which runs there are, not what a run is. Data are known by their images.
_HOW = ("jobs", "shared", "cell", "plan", "lease_seconds", "dry_run")
_MEASURED = tuple(field.name for field in fields(EpisodeOptions))  # after the training; what differs is measured anew
_MAY_DIFFER = (
    "seeds",
    "rows",
    "recipe",
    "name",
    "runs_dir",
    "dataset",
    "data_dir",
    "cache_dir",
    "labels",
    *_HOW,
    *_MEASURED,
)
_PLACED = ("runs_dir", "name", "lease_seconds")  # of a command that makes one of the table's runs


def run(options: Reproduce) -> None:
    options = replace(options, rows=rows_by_recipe(options.rows, options.recipe))
    _check(options)
    if _leaves_each_out(options):
        request = data_request(_data_options(options), seed=0)
        dataset = _open_data(request, options)
        for domain in domain_names([dataset.train, dataset.validation, dataset.test]):
            own = request | {"hold_out_domain": domain}  # what cannot be is told before anything is trained
            _planned(replace(options, hold_out_domain=domain), own, load_dataset(**own), options.runs_dir)
        name = options.name or f"{_default_name(options, dataset)}-domains"
        domains.run(options, dataset, name, _make_table, _command(options, dataset))
        return
    _make_table(options)


def _make_table(options: Reproduce) -> Path:
    """Of one data set, with the splits that the options give it; returns its folder."""
    request = data_request(_data_options(options), seed=0)
    dataset = _open_data(request, options)
    folder = options.runs_dir / (options.name or _default_name(options, dataset))
    if options.precision == "auto":  # stays what it was when the table was begun
        begun = (folder / "config.json").is_file()
        options = with_precision(options, Run(folder).part("options").get("precision", "float32") if begun else None)
    cells = _planned(options, request, dataset, folder)
    unused = _unused(options, cells)
    if BEYOND in options.rows and options.cell is None:  # what makes one run measures nothing
        beyond.check(options, request, dataset)
    config = run_config("reproduce", options, _MAY_DIFFER, request, dataset)
    table = Run(folder) if folder.exists() else None
    if table is not None:
        _check_table(table, config, unused)
        check_cells(cells, folder)
        if BEYOND in options.rows:
            beyond.check_recipe(table, options.recipe)
        check_fingerprints(cells)
    if options.dry_run:
        _dry_run(cells, dataset, folder, ", and their measurements" if BEYOND in options.rows else "")
        return folder
    if options.plan:
        _print_plan(cells, options, dataset)
        return folder
    table = table or _created(folder, config, unused, options)
    if options.cell is not None:
        train_one(table, cells, options)
    elif options.shared:
        train_together(table, cells, options, dataset)
        if BEYOND in options.rows:
            beyond.measure_together(table, cells, options)
        _report_once(table, options, dataset, cells)
    else:
        with locked(table):
            remove_leftovers(table)
            train(table, cells, options, dataset)
            _report(table, options, dataset, cells)
    return folder


def _planned(options: Reproduce, request: dict[str, Any], dataset: Dataset, folder: Path) -> list[Cell]:
    """The runs, as they fit the data.

    Raises:
        InputError: one cannot be trained, with the images that its own seed or fold gives it.
    """
    cells = [
        replace(cell, options=fitted(cell.options, dataset.train.labels)[0]) for cell in plan(options, request, folder)
    ]
    if options.cell is not None and not 1 <= options.cell <= len(cells):
        raise InputError(f"--cell is {options.cell}; the plan has {len(cells)} runs (--plan shows them)")
    # whole groups, folds and the classes that are left may have other numbers; else each draw has as many of each class
    differ = options.folds or options.hold_out_classes or BEYOND in options.rows or dataset.train.groups is not None
    images = {request["seed"]: len(dataset.train)}
    for cell in cells:
        seed = cell.request["seed"]  # of a fold its number
        if seed not in images:
            images[seed] = len(load_dataset(**cell.request).train if differ else dataset.train)
        check_training(cell.options, images[seed], isinstance(cell.options, Pretrain))
    return cells


def _created(folder: Path, config: dict[str, Any], unused: Sequence[str], options: Reproduce) -> Run:
    """The table's folder; of several processes that begin at once one makes it."""
    try:
        return create_run(folder.parent, folder.name, config)
    except InputError:
        if not ((options.shared or options.cell) and (folder / "config.json").is_file()):
            raise
    table = Run(folder)
    _check_table(table, config, unused)
    return table


def _print_plan(cells: list[Cell], options: Reproduce, dataset: Dataset) -> None:
    """A command a run; one that needs another run makes it, or waits for whoever does."""
    command = _command(options, dataset, placed=True)
    for number, cell in enumerate(cells, start=1):
        print(f"{command} --cell {number}  # {cell.description}{', done' if cell.done else ''}")


def _report_once(table: Run, options: Reproduce, dataset: Dataset, cells: list[Cell]) -> None:
    """By the first of the processes that finds everything done; the others wait for it."""
    with console.status("Another process writes the report"):
        lease = wait_for(table.path / LEASES, "report", options.lease_seconds, _PAUSE)
    with lease.kept(lambda _: None):
        file = table.path / "result.json"  # the last one that is written
        made = [*(cell.file for cell in cells), *(beyond.files(cells, options) if BEYOND in options.rows else ())]
        newer = file.exists() and file.stat().st_mtime >= max(each.stat().st_mtime for each in made)
        if newer and (table.result or {}).get("asked") == _asked(options):
            console.print(f"All runs are done, and the report is written: {table.path}")
            return
        _report(table, options, dataset, cells)


def _check(options: Reproduce) -> None:
    choose_rows(options.rows)
    if BEYOND not in options.rows:
        for name in ("hold_out_classes", *_MEASURED):
            if getattr(options, name) != getattr(Reproduce, name):
                raise InputError(f"--{name.replace('_', '-')} does nothing without --rows beyond: leave it out")
    elif options.protocol == "paper" or options.folds or options.hold_out_domain:
        raise InputError("--rows beyond takes no --protocol paper, --folds or --hold-out-domain: leave them out")
    if options.name is not None:
        check_usable_name(options.name, new=False)
    check_least(options, seeds=1, jobs=1, batch_size=2, lease_seconds=1)
    if options.hold_out_domain is not None and not options.domains:
        raise InputError(f"--hold-out-domain {options.hold_out_domain}: add --domains, which says that there are some")
    if (options.shared or options.cell is not None) and options.jobs is not None:
        raise InputError(
            "--jobs: with --shared or --cell each process makes one run at a time; start the command again"
        )
    if _leaves_each_out(options) and (options.plan or options.cell is not None):
        raise InputError("--plan and --cell are of one table: add --hold-out-domain NAME")
    if options.folds and options.seeds is not None:
        raise InputError("--folds repeats the table ten times, once a fold: leave out --seeds")


def _leaves_each_out(options: Reproduce) -> bool:
    """Whether it is a table for each domain; "beyond" has the domains in one, between support and query."""
    return options.domains and options.hold_out_domain is None and BEYOND not in options.rows


def _unused(options: Reproduce, cells: list[Cell]) -> list[str]:
    """Options of training that do nothing in any run.

    Raises:
        InputError: one of them was given.
    """
    training = ("epochs", "batch_size")
    unused = [name for name in training if all(_is_unused(name, cell) for cell in cells)]
    for name in unused:
        if getattr(options, name) != getattr(Reproduce, name):
            flag, rows = name.replace("_", "-"), " ".join(options.rows)
            raise InputError(f"--{flag} does nothing with --rows {rows}: leave it out")
    return unused


def _is_unused(name: str, cell: Cell) -> bool:
    return cell.options.recipe != "paper" or name in unused_of(cell)


def _open_data(request: dict[str, Any], options: Reproduce) -> Dataset:
    try:
        return open_data(request)
    except InputError as error:
        if options.protocol == "paper" and options.test_per_class is None and "test_per_class" in str(error):
            raise InputError(f"{error}: give --test-per-class (the paper's {_PAPER_TEST} are too many here)") from error
        if options.protocol == "paper" and "has validation images of its own" in str(error):
            raise InputError(
                f"--protocol paper draws one validation image a class from train, but {dataset_label(request['name'])} "
                "has validation images of its own: move them into train, or leave --protocol paper out"
            ) from error
        raise


def _data_options(options: Reproduce) -> DataOptions:
    paper = options.protocol == "paper"
    return DataOptions(
        **{field.name: getattr(options, field.name) for field in fields(PictureOptions)},
        dataset=options.dataset,
        data_dir=options.data_dir,
        cache_dir=options.cache_dir,
        samples_per_class=options.samples_per_class,
        test_per_class=_PAPER_TEST if paper and options.test_per_class is None else options.test_per_class,
        image_size=options.image_size,
        hold_out_domain=options.hold_out_domain,
        hold_out_classes=options.hold_out_classes or (("0.5",) if BEYOND in options.rows else ()),
        fold=0 if options.folds else None,
        validation_fraction=_PAPER_VALIDATION if paper else DataOptions.validation_fraction,
    )


def _default_name(options: Reproduce, dataset: Dataset) -> str:
    kind = f"{'-paper' if options.protocol == 'paper' else ''}{'-folds' if options.folds else ''}"
    kind += f"-{BEYOND}{'-open' if options.recipe == 'open' else ''}" if BEYOND in options.rows else ""
    kind += f"-{usable(options.hold_out_domain) or 'domain'}" if options.hold_out_domain else ""
    return f"table-{usable(dataset.label) or 'data'}{kind}"


def _check_table(table: Run, config: dict[str, Any], unused: Sequence[str]) -> None:
    """Raise InputError unless the command makes the table that is there."""
    if table.part("command") != "reproduce":
        raise InputError(f"{table.path} is a {table.config['command']} run, not a table: choose another --name")
    check_same(table, config, (*_MAY_DIFFER, *unused))
    warn_of_versions(table, config["versions"])


def _dry_run(cells: list[Cell], dataset: Dataset, folder: Path, after: str) -> None:
    """Every run with its share of the time. after: what is to be done then, whose time is not known."""
    start_keras(0)
    with console.status("Measuring a few steps of each kind"):
        rates = estimate.measure(cells, dataset)
    table = Table(title=f"{len(cells)} runs in {folder}", title_justify="left")
    for column in ("run", "state"):
        table.add_column(column, overflow="fold")
    table.add_column("estimate", justify="right")
    left = 0.0
    for cell in cells:
        seconds = sum(rates[kind] * images for kind, images in estimate.work(cell, dataset).items())
        left += 0 if cell.done else seconds
        table.add_row(cell.description, "done" if cell.done else "to do", duration(seconds))
    console.print(table)
    to_do = sum(not cell.done for cell in cells)
    console.print(f"Left to do: {to_do} runs, about {duration(left)} on this machine, one at a time{after}")
    console.print("Next: the same command without --dry-run")


def _report(table: Run, options: Reproduce, dataset: Dataset, cells: list[Cell]) -> None:
    """Everything that is made from finished runs; can be made again at any time."""
    if BEYOND in options.rows:
        beyond.run(table, cells, options, dataset, _command(options, dataset), {"asked": _asked(options)})
        return
    start_keras(0)
    from prl_keras.experiments.analysis import analyse, as_json, write_confusions
    from prl_keras.experiments.figures import draw_all
    from prl_keras.experiments.maps import draw_maps
    from prl_keras.experiments.report import choice_warnings, write_report

    with console.status("Intervals and tests"):
        analysis = analyse(options, table.path, cells)
    confusions = write_confusions(analysis)
    console.print(_short_table(analysis, dataset))
    for warning in choice_warnings(analysis):
        console.print(f"warning: {warning}")
    folder = table.path / "figures"
    with console.status("Pictures"):
        pictures = draw_all(analysis, dataset, folder) | draw_maps(analysis, dataset, folder)
        written = write_report(table, analysis, dataset, pictures, _command(options, dataset))
    facts = {"epochs": table.part("options", "epochs"), "asked": _asked(options)}
    write_json(table.path / "result.json", facts | as_json(analysis))
    runs = f"python main.py runs --runs-dir {quoted([str(table.path)])}"
    webpage = f"python -m webbrowser {quoted([str(written[-1])])}"
    print_end([*written, table.path / "result.json", confusions], [runs, webpage])


def _asked(options: Reproduce) -> dict[str, Any]:
    """Which runs a report is of, and how they were measured; the table may have others."""
    measured = {name: getattr(options, name) for name in _MEASURED} if BEYOND in options.rows else {}
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in measured.items()}
    return {"rows": list(options.rows), "seeds": options.seeds, "folds": options.folds, **lists}


def _command(options: Reproduce, dataset: Dataset, placed: bool = False) -> str:
    """The command line that makes this table; `placed`: in this folder."""
    words, left_out = ["python", "main.py", "reproduce"], {*_HOW, *_PLACED} - set(_PLACED if placed else ())
    for field in fields(Reproduce):
        value = getattr(options, field.name)
        value = dataset.name if field.name == "dataset" else value
        if value == field.default or field.name in left_out:
            continue
        words += option_words(field.name, value)
    return quoted(words)


def _short_table(analysis: Any, dataset: Dataset) -> Table:
    from prl_keras.experiments.report import interval

    table = Table(title=f"Test accuracy, n = {analysis.n:,}, {len(analysis.replicates)} trained", title_justify="left")
    table.add_column("row", overflow="fold")
    rows = [(f, f.accuracy["test"], f.by_class) for f in analysis.rows]
    balanced = any(not is_balanced({"value": test["mean"], **classes}) for _, test, classes in rows)
    for column in ("mean", "95 % over seeds", "95 % over images", *(["balanced"] if balanced else [])):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("worst class", overflow="fold")
    for f, test, classes in rows:
        cells = [f"{100 * test['mean']:.1f} %", interval(test), interval(f.over_images)]
        cells += [f"{100 * classes['balanced']:.1f} %"] if balanced else []
        table.add_row(f.row.short, *cells, Text(worst_class(classes, dataset.class_names)))
    return table
