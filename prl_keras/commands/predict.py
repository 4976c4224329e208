"""`python main.py predict`: classify image files with a fine-tuned run."""

import numpy as np
from rich.table import Table

from prl_keras.config import Predict
from prl_keras.data import load_image
from prl_keras.data.request import reading_of
from prl_keras.data.seen import seen_by, short_digests
from prl_keras.errors import InputError
from prl_keras.runs import find_run, has_classifier, has_encoder, list_runs
from prl_keras.screen.console import console
from prl_keras.startup import start_keras


def run(options: Predict) -> None:
    if not options.images:
        raise InputError("no image to classify: name at least one file, python main.py predict RUN IMAGE...")
    if options.top < 1:
        raise InputError(f"--top is {options.top}; expected at least 1")
    tunable = any(map(has_encoder, list_runs(options.runs_dir, skip_damaged=True)))
    make = "finetune" if tunable else "baseline"
    run = find_run(options.run, options.runs_dir, has_classifier, "fine-tuned or baseline run", make)
    reading, class_names = reading_of(run), run.part("data")["class_names"]
    images = np.stack([load_image(path, **reading) for path in options.images])

    start_keras()
    from scipy.special import softmax

    from prl_keras.models.encode import encode
    from prl_keras.models.storage import load_model

    classifier = load_model(run.classifier_file)
    if classifier.input_shape[1:3] != reading["size"] or classifier.output_shape[-1] != len(class_names):
        raise InputError(f"{run.path / 'config.json'} and {run.classifier_file.name} do not fit; restore one of them")
    probabilities = softmax(encode(classifier, images), axis=-1)
    table = Table("image", *(f"{rank}." for rank in range(1, min(options.top, len(class_names)) + 1)))
    for path, row in zip(options.images, probabilities, strict=True):
        best = np.argsort(row)[::-1][: options.top]
        table.add_row(str(path), *(f"{class_names[k]} {100 * row[k]:.1f} %" for k in best))
    console.print(table)
    seen = seen_by(run)
    known = 0 if seen is None else int(np.isin(short_digests(images), seen).sum())
    if known:
        console.print(
            f"{known} of {len(images)} images are among those that {run.name} was trained on: "
            "its answers to these say nothing about new images"
        )
