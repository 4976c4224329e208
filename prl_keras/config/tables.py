"""Options of the commands that make many runs: tune, reproduce."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from prl_keras.config.data import PictureOptions, RunDataOptions
from prl_keras.config.kinds import Count, Folder, Precision, RecipeName, Size, Text
from prl_keras.config.training import RunOptions


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """Of work that several processes share, with nothing between them but a folder."""

    shared: bool = False
    """Work together with other processes, here or on any machine that sees the folder: start the same command as often
    as you like. Each takes the next run that nobody works on, also that of a process that died (docs/scaling.md)."""
    lease_seconds: float = 60.0
    """A process that was not heard of for so long counts as dead."""


@dataclass(frozen=True, kw_only=True)
class Tune(RunDataOptions, SharedOptions, RunOptions):
    """Search for the best fine-tuning: head, freezing, learning rate, weight decay, dropout, augmentation, encoder.

    Trials are compared on validation; the winner is trained again on train + validation and tested once.

    Example: python main.py tune --encoder latest --max-trials 20
    """

    encoder: Annotated[tuple[str, ...], arg(metavar="RUN...")] = ("latest",)
    """Runs with an encoder, each a name or a folder, or latest, of those that were pre-trained; several become part of
    the search."""
    recipe: RecipeName = "paper"
    """Of what is not searched: the schedule of the learning rate, label smoothing, which weights decay."""
    tuner: Literal["random", "bayesian", "hyperband", "grid"] = "random"
    """random and bayesian begin with the paper's four configurations of each encoder; so does grid, at coarser
    values; hyperband begins trials with few epochs and continues the best."""
    max_trials: int = 20
    """Try at most this many configurations."""
    epochs: int = 25
    """Passes over the training images a trial, at most (the paper: 25)."""
    patience: int = 5
    """Stop a trial whose validation accuracy has not improved for this many epochs."""
    batch_size: int = 128
    """Images a step (the paper: 128); a last batch of less than a quarter joins the one before."""
    precision: Precision = "auto"
    """Compute type of training, see `finetune --help`."""
    worker_timeout: int = 600
    """With several processes (docs/tuning.md): give up when nothing was heard for this many seconds."""


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions:
    """Of few-shot episodes."""

    ways: Annotated[int, arg(metavar="N")] = 5
    """Few-shot: classes of an episode."""
    shots: Annotated[tuple[int, ...], arg(metavar="N...")] = (1, 5)
    """Few-shot: pictures of each class that are given."""
    queries: Annotated[int, arg(metavar="N")] = 15
    """Few-shot: pictures of each class that are asked for."""
    episodes: Annotated[int, arg(metavar="N")] = 2_000
    """Few-shot: how many, the same ones for every run with the same classes."""
    far: Annotated[tuple[str, ...], arg(metavar="DATASET...")] = ()
    """The unknown: other data sets, whose test pictures are to be noticed, or folders of pictures alone."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(PictureOptions, EpisodeOptions, SharedOptions):
    """Make the paper's table, with more seeds, intervals and tests: every row, a report with pictures.

    Repeating the command continues where it stopped; with more --seeds or --rows it adds to the table.

    Example: python main.py reproduce --dataset fashion_500 --seeds 3 --dry-run
    """

    dataset: Text = None
    """As in `pretrain --help`. None: STL-10 if it is prepared on this machine, else digits."""
    data_dir: Folder = None
    """Where the data set's files are. None: the library's own folder."""
    cache_dir: Folder = None
    """Folder for decoded images (see `pretrain --help`). None: of large sets, in the user's cache folder."""
    seeds: Count = None
    """Train every row this many times, with seeds 0, 1, ... None: 3 (paper: 1)."""
    protocol: Literal["honest", "paper"] = "honest"
    """honest: averaged weights of the last epoch, 10 % of train for validation, the full test set. paper: 100 test
    images a class, last step's weights, and the best epoch on test beside it, as "optimism"."""
    rows: Annotated[tuple[str, ...], arg(metavar="ROW...")] = ("table",)
    """paper: its eleven rows. table: those and ours. all: all four fine-tunings of every encoder. strong: the strongest
    training of each kind, and the paper's two best. Or single rows, as query-frozen-linear or resnet18. beyond: another
    table, of the strongest encoders on what they were not trained on (docs/beyond.md)."""
    recipe: RecipeName = "paper"
    """strong: single rows by the strong recipe, so that query-frozen-linear is strong-query-frozen-linear; without
    --rows the group strong. open: --rows beyond with encoders for classes to come."""
    hold_out_classes: Annotated[tuple[str, ...], arg(metavar="N|SHARE|NAME...")] = ()
    """--rows beyond: classes that no encoder is trained on (see `pretrain --help`), drawn anew for each seed. Without
    it half of them."""
    folds: bool = False
    """Instead of seeds: STL-10's ten predefined folds of 1,000 training images."""
    hold_out_domain: Text = None
    """--domains: the table with this domain as test alone. None: a table for each domain, and a page of what they say
    together."""
    epochs: int = 25
    """Passes over the training images, in pre-training and in fine-tuning (the paper: 25). Strong and open ones take
    their recipe's, and its batches."""
    batch_size: int = 256
    """Images a step of pre-training; fine-tuning takes half of it (the paper: 256 and 128)."""
    precision: Precision = "float32"
    """Compute type of all trainings: by default the same on all machines. auto: bfloat16 where the processor
    multiplies it by itself, else float32."""
    samples_per_class: Count = None
    """Train on this many images a class. None: all."""
    test_per_class: Count = None
    """Test on this many images a class. None: all (paper: 100)."""
    image_size: Size = None
    """Resize images to this many pixels a side, or to height x width. None: as they are."""
    jobs: Count = None
    """Train, or measure, this many runs at the same time, each in a process of its own; the bits are the same. None:
    as many as pay off on this machine (two on two cores)."""
    plan: bool = False
    """Print a command a run, for an array of jobs; train nothing."""
    cell: Count = None
    """Make only the run of this number in the plan, and what it needs."""
    dry_run: bool = False
    """Print the plan and how long it will take, from a few measured steps; train nothing."""
    name: Text = None
    """Name of the table's folder. None: table-DATASET, with -paper, -folds, -beyond or -beyond-open."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the table's folder; the table's runs are inside that."""
