"""What several commands do with their options and runs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from prl_keras.company import Company
from prl_keras.config import Evaluate, Pretrain, Report, option_words
from prl_keras.data import Dataset
from prl_keras.data.request import data_request_of_run, data_words, open_data
from prl_keras.errors import InputError
from prl_keras.runs import (
    Run,
    find_run,
    gives_features,
    has_classifier,
    has_encoder,
    in_folder,
    is_taught,
    reference_to,
)
from prl_keras.runs.alike import together
from prl_keras.runs.lifecycle import to_continue
from prl_keras.screen.console import console, say
from prl_keras.startup import device, gpus, start_keras
from prl_keras.terminal import quoted
from prl_keras.training.precision import with_precision


@contextmanager
def begun(
    command: str, options: Any, request: dict[str, Any], dataset: Dataset, inputs: dict[str, str]
) -> Iterator[Company]:
    """Keras is started, on the devices that share the training; the other workers are there, and began with the same.

    Args:
        inputs: see `runs.alike.together`.

    Raises:
        InputError: a worker did not come, or has something else; there are not the devices.
    """
    with together(command, options, request, dataset, inputs) as company:
        ready = partial(company.gather, "ready")
        start_keras(options.seed, options.precision, options.deterministic, options.strategy, ready)
        company.check_equal("GPUs", gpus())
        console.print(device(options.precision, options.strategy))
        yield company


def on_this_machine(command: str, options: Any) -> Any:
    """`--precision auto` as what it is here, or was when the run that is continued began; of several machines float32,
    as each may have another processor, and only the chief has the run."""
    if options.precision == "auto" and getattr(options, "strategy", "none") == "multiworker":
        return with_precision(options, "float32")
    run = to_continue(command, options) if options.precision == "auto" else None
    return with_precision(options, run and run.part("options", "precision"))


def stronger(options: Pretrain) -> list[str]:
    """After a pre-training by the paper's recipe: the command of a better one, on the same data."""
    if options.recipe != "paper" or options.kind == "prl":
        return []
    drawing = ("validation_fraction", "fold", "split_seed" if options.split_seed is not None else "seed")
    drawn = {name: getattr(options, name) for name in drawing if getattr(options, name) != getattr(Pretrain, name)}
    drawn_words = "".join(f" {quoted(option_words(name, value))}" for name, value in drawn.items())
    where = f"{data_words(options)}{drawn_words}{in_folder(options.runs_dir)}"
    recipe, page = ("open", "beyond") if options.hold_out_classes else ("strong", "method")
    return [f"python main.py pretrain --variant prl --recipe {recipe}{where}   # docs/{page}.md"]


def check_encoder(shape: tuple[int, ...], dataset: Dataset, name: str) -> None:
    """Raise InputError unless the encoder takes the data set's images."""
    if tuple(shape) != dataset.image_shape:
        expected, found = ("x".join(map(str, s)) for s in (shape, dataset.image_shape))
        raise InputError(
            f"encoder {name!r} takes {expected} images, and {found} were asked for: leave out --image-size, or "
            "pre-train at this size"
        )


def opened(options: Evaluate | Report) -> tuple[Run, Dataset, list[int] | None]:
    """The run, its data set, and of each class the output of its classifier; None: it has none, or knows other classes.

    Raises:
        InputError: no such run, or data that it cannot see.
    """
    run = find_run(options.run, options.runs_dir, gives_features, "run with an encoder")
    dataset = open_data(data_request_of_run(run, options), run)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    return run, dataset, class_outputs(run, dataset) if has_classifier(run) else None


def say_replaced(file: Path, asked: dict[str, Any], of: Callable[[Any], dict[str, Any]] = dict) -> None:
    """Say what a file of figures that is written now had been asked for, if that was something else.

    Args:
        asked: option -> its value now.
        of: the file's content of before -> the options of then; what is damaged is passed over.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        was = of(json.loads(file.read_text(encoding="utf-8")))
        for name, value in was.items():
            if value and name in asked and value != asked[name]:
                words = quoted(option_words(name, tuple(value) if isinstance(value, list) else value))
                say(f"{file.name} is replaced, which was measured with {words}")


def run_argument(run: Run, runs_dir: Path) -> str:
    """How to name the run on the next command line, which works on the same runs' folder."""
    return f"{quoted([reference_to(run, runs_dir)])}{in_folder(runs_dir)}"


def head_words(run: Run) -> str:
    """Options that put a head on the run's encoder, trained as the encoder was; prl has none of the paper's recipe."""
    options = run.config.get("options", {})
    strong = options.get("recipe", "paper") != "paper" or options.get("variant") == "prl"
    return f"--head linear --freeze{' --recipe strong' if strong else ''}"


def find_encoder(reference: str, runs_dir: Path) -> Run:
    """The run whose encoder is to get a head: any that has one; the latest is one that was pre-trained.

    Raises:
        InputError: there is none.
    """
    if reference == "latest":
        return find_run(reference, runs_dir, lambda run: has_encoder(run) and not is_taught(run), "pre-trained encoder")
    return find_run(reference, runs_dir, gives_features, "run with an encoder")


def source_run(run: Run) -> Run:
    """The run that a fine-tuned one has its encoder from; it is named as seen from the folder that it was made in.

    Raises:
        InputError: it is not there any more.
    """
    return find_run(run.result["encoder_run"], run.path.absolute().parent, gives_features, "run with an encoder")


def class_outputs(run: Run, dataset: Dataset) -> list[int] | None:
    """For each class of the data set the output of the run's classifier with the same name; None: it was trained on
    other classes, which is said."""
    own, wanted = run.part("data", "class_names"), list(dataset.class_names)
    if own == wanted:
        return list(range(len(own)))
    if sorted(own) == sorted(wanted) and len(set(own)) == len(own):
        return [own.index(name) for name in wanted]
    missing = next((name for name in wanted if name not in own), None)
    why = f"it has {len(own)} classes, {dataset.label} {len(wanted)}"
    if missing is not None:
        why = f"it knows no {missing!a:.60}"
    say(f"The classifier of run {run.name} was trained on other classes ({why}): what is measured is its encoder alone")
    return None
