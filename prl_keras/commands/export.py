"""`python main.py export`: a run's model as SavedModel, ONNX or LiteRT, compared with the run's before it is kept."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prl_keras.commands import stream
from prl_keras.commands.common import run_argument
from prl_keras.config import Export
from prl_keras.data import load_dataset
from prl_keras.data.catalog import is_ready
from prl_keras.data.request import reading_of
from prl_keras.data.splits import dataset_label
from prl_keras.errors import InputError
from prl_keras.export.formats import FORMATS, Format
from prl_keras.extras import check_installed, how_to_install
from prl_keras.runs import Run, find_run, gives_features, has_classifier, is_taught
from prl_keras.screen.console import console, print_end, say
from prl_keras.startup import native_stderr, start_keras

if TYPE_CHECKING:
    import keras

_PICTURES = 32  # of the run's own that are compared


def run(options: Export) -> None:
    run = find_run(options.run, options.runs_dir, gives_features, "run with a classifier or an encoder")
    form = FORMATS[options.format]
    check_installed(form.writers, f"--format {options.format}", "export", form.runtimes[:1])
    target = _target(run, form, options)
    reading = reading_of(run)  # a damaged record is said before TensorFlow starts

    start_keras()
    from prl_keras.export.program import program

    model, classes = _model(run)
    output = "features" if classes is None else "probabilities"
    about = _about(run, reading, model, classes, options.format)
    _check_own(target, form, about, grows=options.out is None and is_taught(run))
    if options.out is None:
        target.parent.mkdir(exist_ok=True)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    pictures = _pictures(run) if form.runtime else None
    with form.atomic(target) as draft, console.status(f"Converting {run.name}"), native_stderr(lambda line: False):
        form.write(program(model, output), draft, about)
        found = _compare(model, output, form, draft, pictures)
    _say(run, output, about, form, found, pictures)
    reference = run_argument(run, options.runs_dir)
    words = {
        "probabilities": f"predict {reference} IMAGE...",
        "features": f"embed {reference} FOLDER --out vectors.npy",
    }
    print_end([target], [f"python main.py {words[output]}"])


def _target(run: Run, form: Format, options: Export) -> Path:
    """Where to write; its folder is there, if the user named it."""
    if options.out is None:
        return run.path / "export" / form.name
    target = options.out
    if target.name in ("", form.suffix):
        raise InputError(f"--out {target}: choose a name for the {'file' if form.suffix else 'folder'}")
    if target.suffix != form.suffix and form.suffix:
        raise InputError(f"--out {target}: the name of a {options.format} file must end in {form.suffix}")
    if not target.parent.is_dir():
        raise InputError(f"--out {target}: there is no folder {target.parent}; make it first")
    return target


def _model(run: Run) -> tuple[keras.Model, list[str] | None]:
    """The model, and the classes of its logits; None: it gives features."""
    from prl_keras.models.storage import load_encoder, load_model

    if is_taught(run):
        from prl_keras.evaluation.taught import read_taught

        return read_taught(run).model(load_encoder(run))
    if not has_classifier(run):
        return load_encoder(run), None
    return load_model(run.classifier_file), run.part("data", "class_names")


def _about(
    run: Run, reading: dict[str, Any], model: keras.Model, classes: list[str] | None, name: str
) -> dict[str, Any]:
    from prl_keras.models.storage import weights_sha256

    output = "features" if classes is None else "probabilities"
    data, more = run.part("data"), {"format": name, "output": output, "input": "uint8 RGB, 0..255"}
    outputs = model.output_shape[-1] if classes is None else len(classes)
    if list(model.input_shape[1:3]) != data["image_shape"][:2] or model.output_shape[-1] != outputs:
        raise InputError(f"{run.path / 'config.json'} and the run's model do not fit; restore one of them")
    if classes is None:
        return stream.about(run, reading, "export", model, more)
    more |= {"classifier_sha256": weights_sha256(model), "class_names": classes}
    encoder = next((layer for layer in model.layers if layer.name == "encoder"), None)
    return stream.about(run, reading, "export", encoder, more)


def _check_own(target: Path, form: Format, about: dict[str, Any], grows: bool) -> None:
    """Raise InputError unless the place is free, or holds an earlier export of the same weights.

    grows: those of the encoder are enough, as every lesson changes the classes beside it.
    """
    if not (target.exists() or target.is_symlink()):
        return
    old = {} if target.is_symlink() else form.about_of(target)
    own = ("run", "encoder_sha256", *(() if grows else ("classifier_sha256",)))
    if not old or any(old.get(name) != about.get(name) for name in own):
        what = f"an export of run {old['run']!r}" if old.get("run") else f"no {about['format']} export"
        raise InputError(f"{target} is there already, and is {what}: move it away, or choose another --out")


def _pictures(run: Run) -> np.ndarray | None:
    """uint8 (n, height, width, channels) of the run's own data, test if it has one; None: they are not here as they
    were."""
    request = run.part("data", "request")
    with suppress(InputError, OSError):
        if is_ready(request["name"], request.get("data_dir") and Path(request["data_dir"])):  # nothing is downloaded
            data = load_dataset(**request)
            if data.fingerprint == run.part("data")["fingerprint"]:
                images = (data.test if len(data.test) else data.train).images
                rows = np.linspace(0, len(images) - 1, min(_PICTURES, len(images))).astype(int)
                return np.asarray(images[rows])
    return None


def _compare(model: keras.Model, output: str, form: Format, draft: Path, pictures: np.ndarray | None) -> float | None:
    """The largest difference between the answers of the format's runtime and the run's own; None: there is no runtime.

    Args:
        pictures: to be answered for, beside images of noise, black and white.

    Raises:
        InputError: it is larger than the tolerance.
    """
    from prl_keras.export.program import TOLERANCE, difference, expected, trial_images

    if form.runtime is None:
        return None
    images = trial_images(model.input_shape[1:])
    images = images if pictures is None else np.concatenate([images, pictures])
    wanted = expected(model, output, images)
    batches = (slice(0, 1), slice(1, None))  # of one and of several
    found = max(difference(form.answer(draft, images[rows], output), wanted[rows]) for rows in batches)
    if found > TOLERANCE:
        raise InputError(
            f"{form.runtime} gives other {output} than the run's model (by {found:.2g}, {TOLERANCE:g} would do): "
            "nothing was written; try another version of it"
        )
    return found


def _say(
    run: Run, output: str, about: dict[str, Any], form: Format, found: float | None, pictures: np.ndarray | None
) -> None:
    from prl_keras.export.program import TOLERANCE

    height, width, _ = about["image_shape"]
    console.print(f"Exported {run.name}: uint8 images of {height}x{width} px, in batches of any size -> {output}")
    if found is None:
        command = how_to_install(form.runtimes[:1], "export")
        console.print(f"Not compared with the run's model: {command}, and repeat the command")
    else:
        on = "made-up images (the run's own are not here)"
        if pictures is not None:
            on = f"{len(pictures)} images of {dataset_label(run.part('data', 'request', 'name'))}"
        allowed = f"differences up to {found:.1g}, {TOLERANCE:g} would do"
        say(f"{form.runtime} answers as the run's model does on {on}: {allowed}")
