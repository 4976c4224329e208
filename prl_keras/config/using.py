"""Options of the commands that use a run, and of those about what is there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from prl_keras.config.data import DataOptions, RunDataOptions
from prl_keras.config.kinds import Count, File, Folder, Number, RunReference, Text


@dataclass(frozen=True, kw_only=True)
class Teach(RunDataOptions):
    """Teach an encoder new classes from a few pictures each, in a second and without training.

    A class is the mean of its pictures' features, its prototype. The first lesson makes a new run of the encoder, which
    knows the classes that the encoder was trained on; later lessons, with the name of that run, change it. `predict`
    then says the class, "none of these" for what is like no class, and which pictures are most like it.

    Examples:
      python main.py teach latest owl owl1.jpg owl2.jpg owl3.jpg
      python main.py teach latest birds/       (a folder with a folder of pictures for each class)
      python main.py teach latest --forget owl
    """

    run: Positional[RunReference]
    """Any run with an encoder, or one that was taught before: its name, its folder, or latest."""
    lesson: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME IMAGE...|FOLDER")] = ()
    """The class's name and its pictures, or folders of them; or one folder with a folder for each class. A class that
    is known already is refined."""
    forget: Annotated[tuple[str, ...], arg(metavar="NAME...")] = ()
    """Classes that are forgotten, before anything is taught. Write it last, behind the pictures."""
    only_mine: bool = False
    """First lesson: begin without the classes that the encoder was trained on. Nothing then tells how far a picture of
    a known class may be, so that `predict` says "none of these" of no picture."""
    false_alarms: Number = None
    """Of the pictures of known classes, the share that may be taken for "none of these", above 0 and below 1. None: as
    in the lesson before, at first 0.05."""
    name: Text = None
    """First lesson: name of the new run. None: RUN-taught, with a number behind it."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Classify any number of image files with a run that has a classifier, or that was taught classes.

    Few are shown in a table, of many the classes are counted; --out keeps every answer. Damaged files are listed at the
    end, and the exit code is then 1, so that a script notices; 2: nothing was read or written.

    Example: python main.py predict latest photos/ --out photos.csv
    """

    run: Positional[RunReference]
    """A fine-tuned, baseline or taught run: its name, its folder, or latest."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """Image files, or folders of them at any depth; each is read and resized as the run's images were."""
    max_megapixels: Count = None
    """Larger pictures count as damaged. None: as the run, else 89."""
    top: int = 3
    """Show this many classes an image."""
    reject: bool = False
    """Also of a fine-tuned or baseline run say "none of these" of pictures that look like nothing it was trained on, at
    a threshold that takes 5 % of its validation pictures for such. The first time it encodes the run's data set."""
    dataset: Text = None
    """--reject, the first time: where the folder of pictures that the run was trained on is now. None: where it was."""
    data_dir: Folder = None
    """--reject, the first time: where that data set's files are now. None: where they were."""
    out: File = None
    """Write path, classes and probabilities to FILE.csv, .parquet or .json, which must not be there yet. If it is
    interrupted, the same command continues what lies in FILE.partial. None: only show them."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Write the feature vectors of any number of image files, by the encoder of a run.

    Damaged files are listed at the end, and the exit code is then 1, so that a script notices; 2: nothing was read or
    written.

    Example: python main.py embed latest photos/ --out photos.parquet
    """

    run: Positional[RunReference]
    """A run with an encoder, fine-tuned ones included: its name, its folder, or latest."""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="IMAGE...")]
    """Image files, or folders of them at any depth; each is read and resized as the run's images were."""
    max_megapixels: Count = None
    """Larger pictures count as damaged. None: as the run, else 89."""
    out: Annotated[Path, arg(metavar="FILE")]
    """FILE.parquet (path, vector, error), or FILE.npy (vectors) with FILE.npy.csv (their paths) and FILE.npy.meta.json;
    must not be there yet. If it is interrupted, the same command continues what lies in FILE.partial."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run's model for programs without Keras: raw uint8 images in, probabilities or features out.

    Preprocessing is inside, class names and the weights' hash are with it, and its answers are compared with the run's.

    Example: python main.py export latest --format onnx
    """

    run: Positional[RunReference]
    """A run's name, its folder, or latest: a classifier gives probabilities, a pre-trained encoder features."""
    format: Literal["savedmodel", "onnx", "litert"]
    """savedmodel: a folder for TensorFlow. onnx: a file for ONNX Runtime and others. litert: a .tflite file for phones
    (docs/use.md). onnx needs the extra [export]."""
    out: File = None
    """Where to; what is there must be an earlier export of the same run. None: RUN/export/savedmodel, model.onnx or
    model.tflite."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs with their figures."""

    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """Show what --recipe paper, strong and open decide, side by side."""

    kind: Positional[
        Literal["query", "standard", "loo", "views", "prl", "simclr", "supcon", "resnet18", "mlp", "finetune"] | None
    ] = None
    """Of one kind of training only. None: of query, prl and resnet18."""


@dataclass(frozen=True, kw_only=True)
class Data(DataOptions):
    """Show which data sets are prepared; prepare or verify one.

    Example: python main.py data prepare --dataset stl10 --data-dir ~/Downloads
    """

    action: Positional[Literal["list", "prepare", "verify", "cache"]] = "list"
    """list: what is here. prepare: download or extract, then verify. verify: read it all, and name what would spoil a
    result (exit code 1) or deserves a look. cache: decoded images that are kept."""
    path: Positional[str | None] = None
    """verify, prepare: the same as --dataset."""
    json: File = None
    """verify: write all findings, with every file's name, as JSON. A file that verify wrote is replaced."""
    clear: Annotated[str | None, arg(metavar="NAME|all")] = None
    """cache: remove the decoded images of this name, or all. The next command that needs them decodes them again."""
    seed: int = 0
    """Seed of the validation split."""
