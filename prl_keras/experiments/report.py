"""What report.md says, and where."""

from pathlib import Path
from typing import Any

import numpy as np

from prl_keras.data import Dataset
from prl_keras.evaluation.choice import warning_of
from prl_keras.evaluation.statistics import OWN_SPREAD_FROM
from prl_keras.experiments.analysis import Analysis, Comparison, RowFigures, encoder_runs
from prl_keras.experiments.findings import findings
from prl_keras.experiments.page import to_html
from prl_keras.experiments.table import SELF_SUPERVISED, STRONG, STRONG_SUPERVISED, SUPERVISED
from prl_keras.files import atomic_path
from prl_keras.markdown import indented, pipe_table, plain
from prl_keras.runs import Run
from prl_keras.terminal import as_started

_CAPTIONS = {
    "curves": "Mean over the seeds, and their range. Nothing was chosen by these curves: the last epoch counts.",
    "classes": "All seeds together; a class without test images has no accuracy.",
    "confusion": "All seeds together; the row that is best on validation beside the supervised ResNet-18.",
    "reliability": "All seeds together, 15 bins of equal width; bins with fewer than 20 images are not drawn.",
    "labels": "Every encoder but SimCLR's has seen all labels in pre-training, so this is no measure of how few "
    "labels are enough for them. The subsets grow; C of the logistic regression is chosen on validation.",
    "tsne_train": "First seed; prototypes are stars. Distances between far groups mean little in t-SNE.",
    "tsne_test": "The same maps, their test images.",
}
_AGAINST = {
    SUPERVISED: "against ResNet-18",
    SELF_SUPERVISED: "against SimCLR",
    STRONG_SUPERVISED: "against strong ResNet-18",
}
_HEADINGS = {
    "curves": "Learning curves",
    "classes": "Classes",
    "confusion": "Confusions",
    "reliability": "Calibration",
    "labels": "Label efficiency",
    "tsne_train": "The learned space",
}


def write_report(
    table: Run, analysis: Analysis, dataset: Dataset, pictures: dict[str, Path], command: str
) -> list[Path]:
    """report.md and report.html in the table's folder."""
    text = as_started(_markdown(table, analysis, dataset, pictures, command))
    markdown, page = table.path / "report.md", table.path / "report.html"
    for file, content in ((markdown, text), (page, to_html(text, table.path))):
        with atomic_path(file) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return [markdown, page]


def _markdown(table: Run, analysis: Analysis, dataset: Dataset, pictures: dict[str, Path], command: str) -> str:
    blocks = [f"# {plain(dataset.label)}: prototypical pre-training compared", _summary(table, analysis, dataset)]
    blocks += ["## The table", _main_table(analysis, dataset), _notes(table, analysis, dataset)]
    blocks += [_picture("intervals", pictures), "## Findings", *findings(analysis), _plain_note(analysis)]
    for name, caption in _CAPTIONS.items():
        if name in pictures:
            blocks += [f"## {_HEADINGS[name]}"] if name in _HEADINGS else []
            blocks += [_picture(name, pictures), caption]
        if name == "labels" and name in pictures:
            blocks.append(_label_table(analysis))
    blocks += ["## Cost", _cost_table(analysis), _COST_NOTE]
    blocks += [
        "## Every run",
        _run_table(analysis, dataset),
        *_list(choice_warnings(analysis)),
        _ENCODERS_NOTE,
        _encoder_table(analysis, dataset),
    ]
    blocks += ["## How it was made", _made(table, analysis, command)]
    text = "\n\n".join(block for block in blocks if block) + "\n"
    if analysis.replicates[0].fold is None:
        return text
    for seeds in ("over seeds", "All seeds", "the seeds", "images and seeds", "First seed", "each seed"):
        text = text.replace(seeds, seeds.replace("seed", "fold"))
    return f"{text}\n{_FOLDS}\n"


_COST_NOTE = (
    "Images: drawn in training, pre-training included. Passes: forward passes of the encoder on training images (two a "
    "view pair; once an image where a frozen encoder's features are kept). Seconds: training epochs, as they took on "
    "the machine that made them, mean over the runs. A shared encoder counts in full in each of its rows."
)
_FOLDS = (
    "STL-10's folds are drawn from the same 5,000 training images and overlap, so the trainings are not independent: "
    "intervals over folds are somewhat too narrow."
)
_WILSON = "Wilson, for the effective number of images that the seeds see together"
_SPREAD = "± is the standard deviation over seeds. Over seeds: t-interval of the mean (empty where all seeds agree). "
_ENCODERS_NOTE = "The encoders, each trained once and shared by its rows:"


def _summary(table: Run, analysis: Analysis, dataset: Dataset) -> str:
    config = table.config
    options, request = config["options"], config["data"]["request"]
    folds = request["fold"] is not None
    repeated = (
        f"{len(analysis.replicates)} {'folds' if folds else 'seed' if len(analysis.replicates) == 1 else 'seeds'}"
    )
    drawn = "10 % of each training class, drawn anew for each seed"
    validation = drawn if dataset.validation_drawn else "the data set's own"
    protocol = (
        "Honest protocol: nothing was chosen on test; the last epoch counts, with the weights averaged over about the "
        f"last tenth of the steps; validation is {validation}."
        if options["protocol"] == "honest"
        else "The report's protocol: a small test set, the last step's weights, and beside the last epoch the best "
        "epoch *on test*, which is not an estimate of accuracy (see Optimism). 0.2 % of each training class, at least "
        "one image, is kept for the learning curves and for what is chosen on validation."
    )
    by_recipe = any(f.row.source in STRONG for f in analysis.rows)
    strong = (
        " Strong rows train by a recipe of their own (`python main.py recipes`), with its epochs, batches and network."
        if by_recipe
        else ""
    )
    return (
        f"{len(analysis.rows)} rows, {repeated}, epochs: {options['epochs']}, pre-training with batches of "
        f"{options['batch_size']} and fine-tuning with {max(options['batch_size'] // 2, 2)}, Adam 0.001. "
        f"{len(dataset.train):,} training, {len(dataset.validation):,} validation and "
        f"**{analysis.n:,} test images** of {dataset.num_classes} classes. {protocol}{strong}"
    )


def _main_table(analysis: Analysis, dataset: Dataset) -> str:
    optimism = any(f.maximum for f in analysis.rows)
    several = len(analysis.replicates) > 1
    head = ["#", "row", "test %"]
    head += ["95 % over seeds"] if several else []
    head += ["95 % over images"]
    head += ["best epoch on test", "optimism"] if optimism else []
    against = {name: title for name, title in _AGAINST.items() if analysis.row(name) is not None}
    balanced = not _equal_classes(analysis)
    head += ["valid. %", "train %", *against.values()]
    head += [*(["balanced test %"] if balanced else []), "worst class, test %", "paper: test (train)"]
    lines = []
    for f in analysis.rows:
        test = f.accuracy["test"]
        spread = f" ± {100 * test['sd']:.1f}" if several else ""
        cells = [str(f.row.paper[0]) if f.row.paper else "", f.row.title, f"**{100 * test['mean']:.1f}**{spread}"]
        cells += [interval(test)] if several else []
        cells += [interval(f.over_images)]
        if optimism:
            gain = f.maximum["mean"] - test["mean"] if f.maximum else None
            cells += [
                "" if gain is None else f"{100 * f.maximum['mean']:.1f}",
                "" if gain is None else f"{100 * gain:+.1f}",
            ]
        cells += [f"{100 * f.accuracy[split]['mean']:.1f}" for split in ("validation", "train")]
        cells += [_compared(f, reference) for reference in against]
        cells += [f"{100 * f.by_class['balanced']:.1f}"] if balanced else []
        cells += [_worst(f.by_class["worst"], dataset)]
        cells += [f"{f.row.paper[1]} ({f.row.paper[2]})" if f.row.paper else ""]
        lines.append(cells)
    return pipe_table(head, lines, left=(1,))


def _equal_classes(analysis: Analysis) -> bool:
    """Whether every class has as many test images as any other, so that balanced accuracy is the accuracy."""
    counts = analysis.rows[0].confusion.sum(axis=1)
    return len(set(counts[counts > 0])) == 1


def _plain_note(analysis: Analysis) -> str:
    """Nothing where all classes are equal."""
    if _equal_classes(analysis):
        return ""
    return (
        "The findings, and the columns of train and validation, are of plain accuracy, in which large classes weigh "
        "more. Balanced accuracy of test stands in the table and under Every run, of train and validation in each "
        "run's result.json."
    )


def _worst(worst: dict[str, Any], dataset: Dataset) -> str:
    return f"{100 * worst['value']:.1f} {plain(dataset.class_names[worst['class']])}"


def interval(figure: dict[str, Any]) -> str:
    if figure["low"] is None:
        return ""
    return f"{100 * max(figure['low'], 0):.1f} - {100 * min(figure['high'], 1):.1f}"


def _compared(f: RowFigures, reference: str) -> str:
    if f.row.key == reference:
        return "="
    comparison: Comparison | None = f.against.get(reference)
    if comparison is None:
        return ""
    mark = "\\*\\*" if comparison.significant else "\\*" if comparison.over_images else ""
    return f"{100 * comparison.difference:+.1f}{mark}"


def _notes(table: Run, analysis: Analysis, dataset: Dataset) -> str:
    several = len(analysis.replicates) > 1
    star = (
        "\\*: holds over test images (sign-flip permutation of the images, or McNemar's exact test for one seed). "
        f"\\*\\*: holds over seeds too ({_over_seeds(analysis)})."
        if several
        else "\\*: these two models differ on images like these (McNemar's exact test); it says nothing about another "
        "training."
    )
    correction = "corrected for the number of rows by Benjamini-Hochberg"
    paper = "" if dataset.name == "stl10" else " The paper's numbers are of STL-10, not of this data set."
    return (
        f"{_SPREAD if several else ''}Over images: {_WILSON if several else 'Wilson'}. Differences are in points. "
        f"{star} At 5 %, {correction}. The paper's column is the best "
        f"of 25 epochs on 1,000 test images with one seed, about ± 3 points.{paper} {_classes_note(analysis)}"
    )


def _classes_note(analysis: Analysis) -> str:
    balanced = "" if _equal_classes(analysis) else "Balanced: the mean of the classes' accuracies. "
    empty = int(np.sum(analysis.rows[0].confusion.sum(axis=1) == 0))
    missing = f" {empty} class{' has' if empty == 1 else 'es have'} no test images." if empty else ""
    return f"{balanced}Worst class: the one with the lowest accuracy, all seeds together.{missing}"


def _over_seeds(analysis: Analysis) -> str:
    if len(analysis.replicates) >= OWN_SPREAD_FROM:
        return "paired t-test"
    spreads = sorted((f.accuracy["test"]["sd"], f.row.title) for f in analysis.rows)
    return (
        "t-test on the same seeds, the spread pooled over all rows, as if all varied alike; standard deviations "
        f"go from {100 * spreads[0][0]:.2f} ({spreads[0][1]}) to {100 * spreads[-1][0]:.2f} ({spreads[-1][1]}) points"
    )


def _label_table(analysis: Analysis) -> str:
    points = next(iter(analysis.labels.values()))[0]["points"]
    lines = []
    for name, files in analysis.labels.items():
        figures = [[point["test"] for point in file["points"]] for file in files]
        lines.append([name, *_percents(figures, "value")])
        if not _equal_classes(analysis) and all("balanced" in figure for row in figures for figure in row):
            lines.append([f"{name}, balanced", *_percents(figures, "balanced")])  # older versions do not know it
    table = pipe_table(["features of", *(str(p["labels_per_class"]) for p in points)], lines, left=(0,))
    return "\n\n".join([table, *_label_note(analysis)])


def _percents(figures: list[list[dict[str, Any]]], key: str) -> list[str]:
    """(files, points) -> a mean over the files for each point."""
    return [f"{100 * value:.1f}" for value in np.mean([[f[key] for f in row] for row in figures], axis=0)]


def _label_note(analysis: Analysis) -> list[str]:
    """By how many images C was chosen, and how often they could not; curves of older versions do not know."""
    files = [file for group in analysis.labels.values() for file in group if "validation_images" in file]
    if not files:
        return []
    points = [point for file in files for point in file["points"]]
    undecided = sum(not point.get("decided", True) for point in points)
    images = " to ".join(
        f"{n:,}"
        for n in sorted({min(f["validation_images"] for f in files), max(f["validation_images"] for f in files)})
    )
    note = f"C is chosen by {images} validation images"
    if undecided:
        note += f"; for {undecided} of {len(points)} probes they tell no other C from the chosen one"
    return [f"{note}."]


def _cost_table(analysis: Analysis) -> str:
    lines = []
    for f in analysis.rows:
        lines.append([f.row.title, *(f"{f.cost[key]:,.0f}" for key in ("images", "passes", "seconds"))])
    return pipe_table(["row", "images", "passes", "seconds"], lines, left=(0,))


def _run_table(analysis: Analysis, dataset: Dataset) -> str:
    balanced = not _equal_classes(analysis)
    lines = []
    for f in analysis.rows:
        for run, ece in zip(f.runs, f.calibration["eces"], strict=True):
            result = run.result
            test = result["accuracy"]["test"]
            cells = [f"[{run.name}]({run.name}/)", f"{test['correct']:,} / {test['n']:,}"]
            cells += [f"{100 * result['accuracy'][s]['value']:.2f}" for s in ("test", "validation", "train")]
            cells += [f"{100 * test['balanced']:.2f}" if "balanced" in test else ""] if balanced else []
            cells += [_worst(test["worst"], dataset) if "worst" in test else ""]
            lines.append([*cells, f"{100 * ece:.1f}", str(result["epochs"]), f"{result['seconds']:.0f}"])
    head = ["run", "test: correct / n", "test %", "valid. %", "train %"]
    head += [*(["balanced test %"] if balanced else []), "worst class, test %", "ECE %", "epochs", "seconds"]
    return pipe_table(head, lines, left=(0,))


def choice_warnings(analysis: Analysis) -> list[str]:
    """One line for each run whose validation images could as well have chosen otherwise."""
    chosen = {run.name: run.result.get("chosen_on_validation") for f in analysis.rows for run in f.runs}
    warnings = {name: warning_of(record) for name, record in chosen.items() if record}
    return [f"{name}: {warning}" for name, warning in warnings.items() if warning]


def _list(lines: list[str]) -> list[str]:
    return ["\n".join(f"- {plain(line)}" for line in lines)] if lines else []


def _encoder_table(analysis: Analysis, dataset: Dataset) -> str:
    balanced, lines = not _equal_classes(analysis), []
    for run in encoder_runs(analysis):
        figures, result = run.result["saved_encoder"], run.result
        prototype = figures.get("val_prototype", {})  # of older versions the accuracy alone
        cells = [f"[{run.name}]({run.name}/)", f"{100 * figures['val_prototype_accuracy']:.1f}"]
        cells += [f"{100 * prototype['balanced']:.1f}" if prototype else ""] if balanced else []
        cells += [_worst(prototype["worst"], dataset) if prototype else ""]
        cells += [f"{100 * figures['val_knn_accuracy']:.1f}"]
        cells += (
            [f"{100 * figures['val_knn_balanced']:.1f}" if "val_knn_balanced" in figures else ""] if balanced else []
        )
        cells += [f"{figures['val_effective_rank']:.1f}"]
        lines.append([*cells, f"{result['seconds']:.0f}", f"`{result['encoder_sha256'][:12]}`"])
    head = ["run", "valid. %, nearest prototype", *(["balanced"] if balanced else []), "its worst class, %"]
    head += ["valid. %, 10-NN", *(["balanced"] if balanced else []), "effective rank", "seconds", "weights"]
    return pipe_table(head, lines, left=(0,)) if lines else ""


def _made(table: Run, analysis: Analysis, command: str) -> str:
    config = table.config
    runs = [*encoder_runs(analysis), *(run for f in analysis.rows for run in f.runs)]
    recorded = sorted({item for run in runs for item in run.part("versions").items()})
    versions = ", ".join(f"{name} {version}" for name, version in recorded if name != "processors")
    processors = " or ".join(version for name, version in recorded if name == "processors")
    trained = f"; trained on {processors} CPU cores" if processors else ""
    options = ", ".join(f"{key} {value}" for key, value in config["options"].items() if value is not None)
    return (
        f"{indented(command)}\n\n"
        f"Options: {plain(options)}.\n\nData fingerprint (first replicate): `{config['data']['fingerprint']}`.\n\n"
        f"Packages: {versions}{trained}. Made on {config['created'][:10]}.\n\n"
        "Each run's folder has its config.json (options, data, versions), metrics.jsonl (each epoch), result.json and, "
        "for classifiers, predictions.npz (logits of every validation and test image), for encoders tsne.npz (the map) "
        "and label_efficiency.json. The figures of this page, and the p-values that it rests on, are in result.json "
        "beside it, the confusions in confusion.npz."
    )


def _picture(name: str, pictures: dict[str, Path]) -> str:
    return f"![{name}](figures/{pictures[name].name})"
