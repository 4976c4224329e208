"""`python main.py evaluate`: classifiers on the features of a run, and the confusion matrix."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.commands import few_shot, shift, unknown
from prl_keras.commands.by_domain import of_domains, print_domains
from prl_keras.commands.common import head_words, run_argument
from prl_keras.commands.report import encoded_images, write_report
from prl_keras.config import Evaluate
from prl_keras.data import Dataset
from prl_keras.data.request import data_words, file_suffix
from prl_keras.files import atomic_path, write_json
from prl_keras.runs import Run
from prl_keras.runs.card import write_card
from prl_keras.screen.console import accuracy_table, console, in_words, print_end

if TYPE_CHECKING:
    from prl_keras.evaluation.encoded import Encoded

_MOST_IN_JSON = 100  # classes; a thousand make a million lines


def run(options: Evaluate) -> None:
    if options.few_shot:
        few_shot.run(options)
        return
    if options.unknown:
        unknown.run(options)
        return
    if options.shift:
        shift.run(options)
        return
    run, dataset, encoded, seen = encoded_images(options)
    predictions, results = _predictions(encoded, dataset)
    written = _report(run, dataset, encoded, predictions, results, seen)
    written.append(write_report(run, dataset, encoded, seen, results.get("kNN")))
    reference = run_argument(run, options.runs_dir)
    following = (
        f"python main.py predict {reference} IMAGE..."
        if encoded.logits is not None
        else f"python main.py finetune --encoder {reference} {head_words(run)}{data_words(options)}"
    )
    print_end(written, [following])


def _predictions(encoded: "Encoded", dataset: Dataset) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Method -> predicted test labels; method -> `ProbeResult`. Never reads the labels of test."""
    from prl_keras.evaluation.closed_form import classifiers

    own = {} if encoded.logits is None else {"classifier": encoded.logits["test"].argmax(axis=-1)}
    with console.status("Fitting the probes"):
        results = classifiers(*encoded.labelled(dataset), dataset.num_classes)
    return own | {name: result.predicted for name, result in results.items()}, results


def _report(
    run: Run,
    dataset: Dataset,
    encoded: "Encoded",
    predictions: dict[str, np.ndarray],
    results: dict[str, Any],
    seen: dict[str, int] | None,
) -> list[Path]:
    """Figures first, written and printed: whatever becomes of the picture, they are there."""
    from prl_keras.evaluation.statistics import accuracy, confusion_matrix
    from prl_keras.training.tensorboard import log_image
    from prl_keras.visualization.confusion import plot_confusion
    from prl_keras.visualization.text import class_labels

    labels, suffix = dataset.test.labels, file_suffix(run, dataset)
    figures = {name: accuracy(predicted, labels) for name, predicted in predictions.items()}
    method = next(iter(predictions))  # the run's own classifier, else the linear probe
    matrix = confusion_matrix(predictions[method], labels, dataset.num_classes)
    domains = of_domains(dataset, encoded, predictions[method], method)
    chosen = {name: result.how for name, result in results.items()}
    content = {"dataset": dataset.name, "fingerprint": dataset.fingerprint, "split": "test", "accuracy": figures}
    best = max(results, key=lambda name: results[name].validation_accuracy, default=None)
    content |= {"seen_in_training": seen, "chosen_on_validation": chosen, "best_on_validation": best}
    content |= {"class_names": list(dataset.class_names), **({"domains": domains} if domains else {})}
    file = _write(run, suffix, content, method, matrix)
    card = None if suffix else write_card(run)  # of the run's own data alone

    console.print(accuracy_table(f"{run.name} on {dataset.label}, test split", figures, dataset.class_names))
    _print_choices(results, best)
    _print_confusions(matrix, dataset.class_names, method)
    if domains:
        print_domains(domains)
    picture = plot_confusion(
        matrix,
        dataset.class_names,
        f"{run.name}: {method}",
        run.path / "plots" / f"confusion{suffix}.png",
        f"test {in_words(figures[method], class_labels(dataset.class_names))}",
    )
    log_image(run, f"confusion{suffix}", picture)
    return [file, *([card] if card else []), picture]


def _write(run: Run, suffix: str, content: dict[str, Any], method: str, matrix: np.ndarray) -> Path:
    """evaluation.json; of many classes the confusions stand beside it, in confusion.npz."""
    confusion: dict[str, Any] = {"method": method}
    if len(matrix) <= _MOST_IN_JSON:
        confusion["rows_true_columns_predicted"] = matrix.tolist()
    else:
        confusion["file"] = f"confusion{suffix}.npz"
        with atomic_path(run.path / confusion["file"]) as temporary:
            np.savez_compressed(temporary, rows_true_columns_predicted=matrix)
    file = run.path / f"evaluation{suffix}.json"
    write_json(file, content | {"confusion": confusion})
    return file


def _print_choices(results: dict[str, Any], best: str | None) -> None:
    for name, result in results.items():
        if result.how:
            console.print(f"{name}: {result.how}")
        if result.warning:
            console.print(f"warning: {name}: {result.warning}")
    if best:
        console.print(
            f"best on validation: {best}, {100 * results[best].validation_accuracy:.1f} % "
            f"of {results[best].validation_images:,} images"
        )


def _print_confusions(matrix: np.ndarray, class_names: tuple[str, ...], method: str, most: int = 3) -> None:
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(wrong, axis=None)[::-1][:most]
    pairs = [
        f"{class_names[true]} taken for {class_names[predicted]} {wrong[true, predicted]}x"
        for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[true, predicted]
    ]
    if pairs:
        console.print(f"Most frequent errors of the {method}: {'; '.join(pairs)}")
