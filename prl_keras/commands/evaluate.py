"""`python main.py evaluate`: linear probe, kNN, nearest prototype and confusion matrix of a run."""

from typing import Any

import numpy as np

from prl_keras.commands.common import (
    accuracy_table,
    console,
    data_request_of_run,
    open_data,
    print_end,
    run_argument,
    warn_of_seen,
)
from prl_keras.commands.finetune import check_encoder
from prl_keras.config import Evaluate
from prl_keras.data import Dataset
from prl_keras.errors import InputError
from prl_keras.runs import Run, find_run, has_classifier, has_encoder, write_json
from prl_keras.startup import start_keras


def run(options: Evaluate) -> None:
    run = find_run(options.run, options.runs_dir, lambda run: has_encoder(run) or has_classifier(run), "finished run")
    dataset = open_data(data_request_of_run(run, options), run)
    check_encoder(tuple(run.part("data")["image_shape"]), dataset, run.name)
    warn_of_seen(run, dataset)
    classes = run.part("data")["class_names"]
    if has_classifier(run) and len(classes) != dataset.num_classes:
        raise InputError(
            f"run {run.name!r} classifies {len(classes)} classes, but {dataset.name} has {dataset.num_classes}: "
            f"evaluate its encoder's run, or fine-tune on {dataset.name}"
        )
    start_keras()
    predictions, chosen = _predictions(run, dataset)
    _report(run, dataset, predictions, chosen, options)


def _predictions(run: Run, dataset: Dataset) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Method -> predicted test labels; method -> what was chosen on validation."""
    from prl_keras.evaluation import probes
    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_encoder, load_model

    predictions = {}
    if has_classifier(run):
        classifier = load_model(run.classifier_file)
        predictions["classifier"] = encode(classifier, dataset.test.images).argmax(axis=-1)
    encoder = load_encoder(run)
    with console.status("Encoding the images"):
        train, validation, test = (
            probes.Features(encode(encoder, split.images), split.labels)
            for split in (dataset.train, dataset.validation, dataset.test)
        )
    with console.status("Fitting the probes"):
        results = {
            "linear probe": probes.linear_probe(train, validation, test),
            "kNN": probes.knn(train, validation, test),
            "nearest prototype": probes.nearest_prototype(train, validation, test, dataset.num_classes),
        }
    chosen = {name: ", ".join(f"{k} = {v}" for k, v in r.chosen.items()) for name, r in results.items()}
    return predictions | {name: result.predicted for name, result in results.items()}, chosen


def _report(
    run: Run,
    dataset: Dataset,
    predictions: dict[str, np.ndarray],
    chosen: dict[str, str],
    options: Evaluate,
) -> None:
    from prl_keras.evaluation.statistics import accuracy, confusion_matrix
    from prl_keras.training.tensorboard import log_image
    from prl_keras.visualization.figures import plot_confusion

    labels = dataset.test.labels
    figures = {name: accuracy(predicted, labels) for name, predicted in predictions.items()}
    method = next(iter(predictions))  # the run's own classifier, else the linear probe
    matrix = confusion_matrix(predictions[method], labels, dataset.num_classes)
    stem = "" if dataset.name == run.part("data")["request"]["name"] else f"-{dataset.name.replace(':', '-')}"
    picture = plot_confusion(
        matrix,
        dataset.class_names,
        f"{run.name}: {method}, test {100 * figures[method]['value']:.1f} %",
        run.path / "plots" / f"confusion{stem}.png",
    )
    log_image(run, f"confusion{stem}", picture)
    file = run.path / f"evaluation{stem}.json"
    content: dict[str, Any] = {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": "test",
        "accuracy": figures,
        "chosen_on_validation": chosen,
        "confusion": {"method": method, "rows_true_columns_predicted": matrix.tolist()},
        "class_names": list(dataset.class_names),
    }
    write_json(file, content)
    console.print(accuracy_table(f"{run.name} on {dataset.name}, test split", figures, chosen))
    _print_confusions(matrix, dataset.class_names, method)
    reference = run_argument(run, options.runs_dir)
    following = (
        f"python main.py predict {reference} IMAGE..."
        if has_classifier(run)
        else f"python main.py finetune --encoder {reference} --head linear --freeze"
    )
    print_end([file, picture], [following])


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
