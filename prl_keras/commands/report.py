"""`python main.py report`: one HTML page of a run, with its pictures inside."""

from pathlib import Path
from typing import TYPE_CHECKING

from prl_keras.commands.common import opened, run_argument
from prl_keras.config import Evaluate, Report, check_least
from prl_keras.data import Dataset
from prl_keras.data.request import data_words, file_suffix, warn_of_seen
from prl_keras.reports.page import check_replaceable, write_page
from prl_keras.runs import Run
from prl_keras.screen.console import console, print_end
from prl_keras.startup import start_keras

if TYPE_CHECKING:
    from prl_keras.evaluation.encoded import Encoded
    from prl_keras.evaluation.probes import ProbeResult


def run(options: Report) -> None:
    check_least(options, map_per_class=2)
    run, dataset, encoded, seen = encoded_images(options)
    page = write_report(run, dataset, encoded, seen, map_per_class=options.map_per_class)
    reference = f"{run_argument(run, options.runs_dir)}{data_words(options)}"
    evaluated = (run.path / f"evaluation{file_suffix(run, dataset)}.json").exists()
    console.print(f"A page for your browser: {page.resolve().as_uri()}")
    print_end([page], [f"python main.py {'visualize' if evaluated else 'evaluate'} {reference}"])


def encoded_images(options: Report | Evaluate) -> tuple[Run, Dataset, "Encoded", dict[str, int] | None]:
    """The run, its data set, all images as the run sees them, and how many of them it was trained on.

    Raises:
        InputError: before the work, and before anything is written: no such run, data that it cannot see, or what has
            the name of its page is no page.
    """
    run, dataset, outputs = opened(options)
    check_replaceable(_file(run, dataset))
    seen = warn_of_seen(run, dataset)
    start_keras()
    from prl_keras.evaluation.encoded import encode_run

    with console.status("Encoding the images"):
        return run, dataset, encode_run(run, dataset, outputs), seen


def write_report(
    run: Run,
    dataset: Dataset,
    encoded: "Encoded",
    seen: dict[str, int] | None,
    near: "ProbeResult | None" = None,
    map_per_class: int | None = None,
) -> Path:
    """RUN/report.html, or report-DATA.html for other data than the run's.

    near, map_per_class: see `run_page.page_data`.
    """
    from prl_keras.reports.record import run_record
    from prl_keras.reports.run_page import page_data

    suffix = file_suffix(run, dataset)
    record = run_record(run, dataset, suffix, seen)
    included = bool(run.config.get("options", {}).get("include_validation")) and not suffix
    with console.status("Making the page"):
        data, sheets = page_data(dataset, encoded, record, included, map_per_class, near)
    return write_page(_file(run, dataset), f"{run.name} on {dataset.label}", data, sheets)


def _file(run: Run, dataset: Dataset) -> Path:
    return run.path / f"report{file_suffix(run, dataset)}.html"
