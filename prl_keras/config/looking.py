"""Options of the commands that look at a run: evaluate, report, visualize."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from prl_keras.config.data import RunDataOptions, RunPictureOptions
from prl_keras.config.kinds import Count, Folder, RunReference, Text
from prl_keras.config.tables import EpisodeOptions


@dataclass(frozen=True, kw_only=True)
class Evaluate(RunDataOptions, EpisodeOptions):
    """Measure the representations of a run: linear probe, kNN, prototypes, ridge, their average, confusion matrix.

    Every choice (C of the probe, k of kNN, alpha of ridge) is made on validation.

    Examples:
      python main.py evaluate latest
      python main.py evaluate latest --few-shot
      python main.py evaluate latest --unknown --far digits
      python main.py evaluate latest --shift --relative-to OTHER
    """

    run: Positional[RunReference] = "latest"
    """The run's name, its folder, or latest."""
    few_shot: bool = False
    """Instead, on classes that the run never saw (`pretrain --hold-out-classes`, or --dataset): episodes in which a few
    pictures a class tell the others apart, and retrieval."""
    unknown: bool = False
    """Instead: does it notice pictures of classes that it does not know, those of held-out classes and of --far?"""
    shift: bool = False
    """Instead: accuracy on the test pictures under 15 common corruptions at five severities: noise, blur, weather,
    contrast, compression. Nothing is trained on them or chosen by them."""
    relative_to: Annotated[str | None, arg(metavar="RUN")] = None
    """--shift: a run that was measured so before. Errors are compared with its errors (mCE), picture by picture."""
    seed: int = 0
    """--shift: seed of the corruptions."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Report(RunDataOptions):
    """Write one HTML page of a run, which opens in any browser, without a network: RUN/report.html.

    Figures, curves, confusions, errors, doubtful labels, neighbours and a map, with the pictures themselves.
    `evaluate` ends with it.

    Example: python main.py report latest
    """

    run: Positional[RunReference] = "latest"
    """The run's name, its folder, or latest."""
    map_per_class: Count = None
    """Pictures of each class and split on the map, at most 2,000 of a split. None: 30, and at most 400 of a split,
    which takes seconds; `visualize` shows 100."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""


@dataclass(frozen=True, kw_only=True)
class Visualize(RunPictureOptions):
    """Look at the representations of a run: TensorBoard's projector, and t-SNE pictures.

    Encodes some images of each class, writes them into the run's logs/projector/, draws plots/tsne-SPLIT.png,
    and prints the command that opens them.

    Example: python main.py visualize latest --before
    """

    run: Positional[RunReference] = "latest"
    """The run's name, its folder, or latest."""
    split: Literal["train", "validation", "test", "all"] = "all"
    """Which images; all: the three splits in one map, so that train and test can be compared."""
    samples_per_class: Annotated[int, arg(metavar="N")] = 100
    """At most this many images a class and split (the paper: 100); of a split at most 2,000, alike of each class."""
    before: bool = False
    """Also the encoder as it was before the run's training: untrained, or the one that it began with."""
    dataset: Text = None
    """Another data set than the run's (see `pretrain --help`). None: the run's."""
    data_dir: Folder = None
    """Where that data set's files are. None: the run's."""
    cache_dir: Folder = None
    """Folder for decoded images (see `pretrain --help`). None: the run's."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""
    seed: int = 0
    """Seed of the choice of images and of t-SNE."""
