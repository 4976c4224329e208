"""card.md: what a finished run is, in words, for whoever is given its folder; made of its records alone.

Nothing of this computer gets in: of paths only their last part.
"""

from pathlib import Path
from typing import Any

from prl_keras.data.catalog import CATALOG
from prl_keras.data.layout import UNLABELLED
from prl_keras.data.seen import not_recorded
from prl_keras.data.splits import dataset_label
from prl_keras.files import write_text
from prl_keras.markdown import listed, pipe_table, plain
from prl_keras.runs import Run, has_classifier, is_kept, is_taught, names_classes
from prl_keras.runs.records import FIGURE, damage, is_whole, read_record
from prl_keras.screen.console import percent, percent_interval, worst_class
from prl_keras.terminal import as_started

_BEGIN, _END = "<!-- figures: kept up to date by `evaluate` -->", "<!-- end of figures -->"
_DATA = ("validation_fraction", "samples_per_class", "test_per_class", "fold", "resize")  # options worth a word
_LABELLED = {
    "accuracy": lambda figures: isinstance(figures, dict) and not any(damage(f, FIGURE) for f in figures.values())
}
_LICENCE = """## Licence

The field `license` at the top of this file is for you to fill in, if you give the model away. Images that it was
trained on have terms of their own: see Data."""
_UNKNOWN = "not known to prl-keras, see where they are from"  # licence of images


def write_card(run: Run) -> Path | None:
    """Write card.md, or of one that is there renew the figures alone: the rest may have been edited.

    Returns:
        The file; None if it has no place for figures any more, and was left as it is.

    Raises:
        InputError: a record is damaged.
    """
    file = run.path / "card.md"
    if not file.exists() and not file.is_symlink():
        write_text(file, _card(run))
        return file
    before, begin, rest = _text(file).partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        return None
    write_text(file, before + as_started(_figures(run)) + after)
    return file


def _text(file: Path) -> str:
    """Empty of what is no file of text."""
    try:
        return "" if file.is_symlink() else file.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _card(run: Run) -> str:
    task = "image-classification" if names_classes(run) else "image-feature-extraction"
    top = f"---\nlicense: unknown\nlibrary_name: keras\npipeline_tag: {task}\n---"
    blocks = [top, f"# {plain(run.name)}", _what(run), "## Data", _data(run), "## Figures", _figures(run)]
    blocks += ["## How to load it", _loading(run), "## Limits", _limits(run), _LICENCE]
    return as_started("\n\n".join(blocks) + "\n")


def _what(run: Run) -> str:
    config, result = run.config, run.result or {}
    options = dict(config.get("options", {}))
    source = _last(result.get("encoder_run", options.get("encoder", "")))
    if is_kept(run):
        what = f"The encoder of {plain(_last(options.get('init')))} as it is, nothing was trained: kept"
        options = {name: options.get(name) for name in ("init", "weights", "epochs", "seed")}
    elif config.get("command") == "pretrain":
        what = f"An encoder of images, pre-trained with `{plain(str(options.get('variant')))}`"
    elif config.get("command") == "finetune":
        how = "frozen" if options.get("freeze") else "trained with it"
        what = (
            f"A classifier of images: a {plain(str(options.get('head')))} head on the encoder of {plain(source)}, {how}"
        )
    elif config.get("command") == "teach":
        what = f"A classifier of images: prototypes of classes beside the encoder of {plain(source)}, taught one by one"
    else:
        what = f"A classifier of images: {plain(str(options.get('model')))}, trained from scratch"
    words = f"{what}, by `python main.py {config.get('command')}` of prl-keras on {config['created'][:10]}."
    if "encoder" in options:
        options["encoder"] = source
    if options.get("init"):
        options = {name: value for name, value in options.items() if name not in ("stem", "width")}
        options["init"] = _last(options["init"])
    if options.get("weights"):
        options["weights"] = _last(options["weights"])
    if isinstance(options.get("unlabelled"), str):
        options["unlabelled"] = _last(options["unlabelled"])
    given = ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
    versions = ", ".join(f"{name} {value}" for name, value in config.get("versions", {}).items())
    return f"{words}\n\nOptions: {plain(given)}.\n\nMade with: {plain(versions)}."


def _data(run: Run) -> str:
    data = run.part("data")
    (height, width, _), names, request = data["image_shape"], data["class_names"], data["request"]
    classes = f"{len(names):,} classes: {listed(names, 'config.json')}"
    classes = "no classes" if tuple(names) == UNLABELLED else classes
    accuracy = (run.result or {}).get("accuracy", {})
    counts = [f"{_count(accuracy[split])} {split}" for split in accuracy if _count(accuracy[split])]
    sentences = [f"{plain(dataset_label(request['name']))}, {height}x{width} px, RGB, {classes}."]
    sentences += [f"Images: {', '.join(counts)}."] if counts else []
    chosen = [f"{name} {request[name]}" for name in _DATA if request.get(name) is not None]
    if held_out := data.get("held_out"):
        left_out = "Held out" if is_kept(run) else "Not trained on"
        sentences += [f"{left_out}: {len(held_out):,} more classes, {listed(held_out, 'config.json')}."]
    sentences += [f"As chosen: {plain(', '.join(chosen))}."] if chosen else []
    sentences += [f"{len(data['skipped']):,} files could not be read and were left out."] if data.get("skipped") else []
    licence = CATALOG[request["name"]].licence if request["name"] in CATALOG else _UNKNOWN
    sentences += [f"Licence of the images: {licence}."]
    return " ".join([*sentences, f"Fingerprint of images and splits: `{plain(data['fingerprint'])}`."])


def _figures(run: Run) -> str:
    """With the marks around it, by which it is found again."""
    result, names = run.result or {}, run.part("data", "class_names")
    accuracy, encoder = result.get("accuracy", {}), result.get("saved_encoder", {})
    notes = [_taught(result)] if is_taught(run) else []
    rows = [
        (f"{split}, the classifier", accuracy[split]) for split in ("test", "validation", "train") if split in accuracy
    ]
    if "val_prototype" in encoder:
        rows.append(("validation, nearest prototype", encoder["val_prototype"]))
    notes += [_seen(result.get("seen_by_encoder"), "its encoder")]
    file = run.path / "evaluation.json"
    if file.exists():
        evaluation = read_record(file, _LABELLED)
        rows += [(f"test, {plain(name)}", f) for name, f in evaluation["accuracy"].items() if name != "classifier"]
        best = evaluation.get("best_on_validation")
        notes += [f"Best on validation: {plain(best)}." if isinstance(best, str) else ""]
        notes += [_seen(evaluation.get("seen_in_training"), "it")]
    if not rows:
        rest = "No accuracy has been measured: `python main.py evaluate` does, on images with classes."
    else:
        head = ["accuracy on", "%", "95 % interval", "n", "balanced %", "worst class"]
        rest = pipe_table(head, [_row(name, figure, names) for name, figure in rows], left=(0, 5))
        notes.insert(0, "Intervals (Wilson) are over the images; another seed's training differs too.")
    return "\n\n".join(part for part in (_BEGIN, rest, " ".join(filter(None, notes)), _END) if part)


def _row(name: str, figure: dict[str, Any], names: list[str]) -> list[str]:
    interval = percent_interval(figure) if {"low", "high"} <= set(figure) else ""
    balanced = f"{100 * figure['balanced']:.1f}" if "balanced" in figure else ""
    worst = plain(worst_class(figure, names)) if balanced else ""
    return [name, percent(figure).removesuffix(" %"), interval, _count(figure), balanced, worst]


def _count(figure: dict[str, Any]) -> str:
    return f"{figure['n']:,}" if is_whole(figure.get("n")) else ""


def _seen(counts: Any, who: str) -> str:
    """Images that were trained on say nothing about new ones."""
    counts = counts if isinstance(counts, dict) else {}
    seen = [f"{n:,} {plain(split)} images" for split, n in counts.items() if is_whole(n) and n]
    return f"Beware: {who} was trained on {' and '.join(seen)}." if seen else ""


def _taught(result: dict[str, Any]) -> str:
    """How many classes there are, and which were taught with how many pictures."""
    taught = result.get("taught") if isinstance(result.get("taught"), dict) else {}
    named = listed([f"{name} ({count})" for name, count in taught.items()], "result.json")
    words = f"It knows {result.get('classes')} classes; taught, with this many pictures: {named or 'none'}."
    alarms = result.get("false_alarms")
    if damage(alarms, {"correct": is_whole, "n": is_whole}):
        return words
    share = f"{alarms['correct']} of {alarms['n']} test pictures of the classes that the encoder was trained on"
    return f'{words} It takes {share} for "none of these".'


def _loading(run: Run) -> str:
    height, width, channels = run.part("data", "image_shape")
    if is_taught(run):
        judged = (run.result or {}).get("threshold") is not None  # else `is_known` raises
        answers = ("names, known", ", classifier.is_known(images)") if judged else ("names", "")
        return f"""In the folder above this one:

```python
import numpy, prl_keras

classifier = prl_keras.load_taught("{plain(run.name)}", ".")
images = numpy.zeros((1, {height}, {width}, {channels}), "uint8")  # yours: RGB, 0..255, of this size
{answers[0]} = classifier.predict(images){answers[1]}
```

For use without prl-keras: `python main.py export`."""
    file, output = ("classifier.keras", "logits") if has_classifier(run) else ("encoder.keras", "features")
    code = f"""import keras, numpy

model = keras.models.load_model("{file}")
images = numpy.zeros((1, {height}, {width}, {channels}), "uint8")  # yours: RGB, 0..255, of this size
{output} = model.predict(images)"""
    code += "\nprobabilities = keras.ops.softmax(logits)  # classes as in config.json" * (output == "logits")
    words = "Plain Keras 3 opens it in this folder; preprocessing is inside:"
    return f"{words}\n\n```python\n{code}\n```\n\nFor use without Keras: `python main.py export`."


def _limits(run: Run) -> str:
    data, seed = run.part("data"), run.config.get("options", {}).get("seed")
    resize = plain(str(data["request"].get("resize", "crop")))
    those = "its data" if is_kept(run) else "those that it was trained on"
    lines = [
        f"Its figures are of images from the same source as {those}. Others, of another camera, "
        "place or time, were not measured; nor was whether it is as good for all people whom they may show.",
        f"It sees {data['image_shape'][0]}x{data['image_shape'][1]} px; `python main.py predict` and `embed` bring "
        f"pictures to that size as those of its data ({resize}), the loaded model does not.",
    ]
    if network := not_recorded(run):
        lines.append(f"What {plain(network)} was trained on is not known here.")
    if is_kept(run):
        lines.append("Nothing was trained.")
    elif not is_taught(run):
        lines.append(f"It is one training, with seed {plain(str(seed))}: another one differs by more than rounding.")
    if has_classifier(run):
        trust = "`python main.py report` says when to trust it"
        lines.insert(0, f"It answers with one of its classes, whatever a picture shows; {trust}.")
    return "\n".join(f"- {line}" for line in lines)


def _last(path: Any) -> str:
    return Path(str(path)).name
