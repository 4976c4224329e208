"""Every option of every command, declared once: name, type, default, help. The command line is made from this.

One frozen dataclass a command; the text below a field is its `--help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from prl_keras.errors import InputError
from prl_keras.recipes import CONTRASTIVE, PROTOTYPES, RECIPES

Count = Annotated[int | None, arg(metavar="N")]
Number = Annotated[float | None, arg(metavar="FLOAT")]
Text = Annotated[str | None, arg(metavar="NAME")]
Folder = Annotated[Path | None, arg(metavar="PATH")]
RunReference = Annotated[str, arg(metavar="RUN")]
File = Annotated[Path | None, arg(metavar="FILE")]


def typed(value: Any) -> str:
    """An option's value as it is typed."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _size(words: list[str]) -> int | tuple[int, int] | None:
    if words == ["None"]:
        return None
    try:
        height, *width = (int(side) for side in words[0].lower().split("x"))
    except ValueError:
        height, *width = 0, 0, 0
    if len(width) > 1:
        raise ValueError(f"{words[0]!a} is no size: write one side, N, or height and width, HxW")
    return (height, *width) if width and width != [height] else height


_SIZE = PrimitiveConstructorSpec(
    nargs=1,
    metavar="N|HxW",
    instance_from_str=_size,
    is_instance=lambda value: value is None or isinstance(value, int | tuple),
    str_from_instance=lambda value: [typed(value)],
)
Size = Annotated[int | tuple[int, int] | None, _SIZE]
Resize = Literal["crop", "pad", "stretch"]
Damaged = Literal["refuse", "skip"]

Variant = Literal["query", "standard", "loo", "views", "prl", "simclr", "supcon"]
Distance = Literal["euclidean", "squared", "cosine"]
RecipeName = Literal["paper", "strong"]
Stem = Literal["imagenet", "small", "stride2", "stride1", "fine"]
Augmentation = Literal["none", "light", "simclr", "strong", "strong-noflip", "trivial"]
_POLICIES = "{none,light,simclr,strong,strong-noflip,trivial}"
_STEMS = "{imagenet,small,stride2,stride1,fine}"
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    labels: File = None
    """Of a folder: a CSV or TSV with the columns path and label, and if wanted split and group (docs/data.md); or none:
    pictures at any depth without classes, for `pretrain --variant simclr`."""
    resize: Resize = "crop"
    """To a size of another shape. crop: around the centre. pad: the whole image, with grey bars. stretch."""
    damaged: Damaged = "refuse"
    """Pictures of a folder that cannot be read: refuse (and name them), or skip and record them."""
    max_megapixels: Count = None
    """Pictures of a folder that are larger count as damaged. None: 89."""


@dataclass(frozen=True, kw_only=True)
class RunPictureOptions:
    """None: as the run."""

    labels: File = None
    """Of a folder: a CSV or TSV with the pictures' classes (see `pretrain --help`). None: as the run."""
    resize: Annotated[Resize | None, arg(metavar="{crop,pad,stretch}")] = None
    """To a size of another shape. None: as the run."""
    damaged: Annotated[Damaged | None, arg(metavar="{refuse,skip}")] = None
    """Pictures of a folder that cannot be read. None: as the run."""
    max_megapixels: Count = None
    """Pictures of a folder that are larger count as damaged. None: as the run."""


@dataclass(frozen=True, kw_only=True)
class DataOptions(PictureOptions):
    dataset: Text = None
    """stl10, fashion_mnist, fashion_500, digits, tfds:NAME, or a folder of pictures: PATH/<class>/*, or
    PATH/train/<class>/* and PATH/test/<class>/* (docs/data.md). None: the folder of --labels; else STL-10 if it is
    prepared on this machine, else digits."""
    data_dir: Folder = None
    """Where the data set's files are (for stl10: a folder with stl10_binary/ or stl10_binary.tar.gz).
    None: the library's own folder."""
    cache_dir: Folder = None
    """Folder for decoded images of folders and tfds sets, which later commands open at once; none: decode them into
    memory each time. None: large sets only, in the user's cache folder (or PRL_KERAS_CACHE)."""
    validation_fraction: float = 0.1
    """Share of each class of train that is set aside for validation, unless the data set has validation images."""
    samples_per_class: Count = None
    """Train on this many images a class. None: all."""
    test_per_class: Count = None
    """Test on this many images a class (the paper: 100), the same ones for every seed. None: all."""
    image_size: Size = None
    """Resize images to this many pixels a side, or to height x width. None: as they are."""
    fold: Annotated[int | None, arg(metavar="0..9")] = None
    """Train on one of STL-10's ten predefined folds. None: all of train."""
    split_seed: Count = None
    """Seed of the validation split, of the training subset and of classes that are drawn. None: the same as --seed."""
    hold_out_classes: Annotated[tuple[str, ...], arg(metavar="N|SHARE|NAME...")] = ()
    """Classes that are not trained on, for `evaluate --few-shot`: their names, or one number, of classes or below 1 of
    their share, which the seed draws; one number alone is no name. None are held out unless this is given."""


@dataclass(frozen=True, kw_only=True)
class RunDataOptions(RunPictureOptions):
    """Data options of a command that starts from a run: None keeps what the run was trained on."""

    dataset: Text = None
    """Another data set than the run's (see `pretrain --help`). None: the run's."""
    data_dir: Folder = None
    """Where that data set's files are. None: the run's."""
    cache_dir: Folder = None
    """Folder for decoded images (see `pretrain --help`). None: the run's."""
    samples_per_class: Count = None
    """Train on this many images a class. None: as the run."""
    test_per_class: Count = None
    """Test on this many images a class. None: as the run."""
    image_size: Size = None
    """Resize images to this many pixels a side, or to height x width. None: as the run."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    name: Text = None
    """Name of the run's folder. None: made from the options, with a number behind it."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the runs."""
    resume: bool = False
    """Continue the latest unfinished run of this command. A repeated command continues its own unfinished
    run without it, except tune's."""
    seed: int = 0
    """Seed of everything random: weights, order of images, augmentation, dropout."""
    verbose: bool = False
    """Show all figures of each epoch, not only those that matter. metrics.jsonl always has all."""


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What a recipe decides and an option can overrule: None is the recipe's value, and is replaced by it here."""

    recipe: RecipeName = "paper"
    """paper: the report's settings. strong: the strongest training that we know for few labels. Every option that is
    given overrules it; the command `recipes` shows both."""
    average: bool = True
    """Keep the moving average of the weights over about the last tenth of the steps instead of what the last
    step leaves. --no-average: the last step, as in the paper."""
    label_smoothing: Number = None
    """Share of the target that is spread over all classes (the paper: 0)."""
    mix: Annotated[Literal["none", "mixup", "cutmix"] | None, arg(metavar="{none,mixup,cutmix}")] = None
    """Mix each image with another one, and their labels: mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019); for
    prl the queries only (the paper: none)."""
    mix_alpha: Number = None
    """Their shares are drawn from Beta(alpha, alpha) (1)."""
    mix_probability: Number = None
    """Share of the images that are mixed (0.5)."""
    schedule: Annotated[Literal["constant", "cosine"] | None, arg(metavar="{constant,cosine}")] = None
    """Of the learning rate: constant (the paper), or cosine to 0 after a warm-up."""
    warmup: Number = None
    """Share of all steps in which a cosine schedule rises (0.05)."""
    weight_decay: Number = None
    """Of Adam, decoupled: each step also shrinks the weights by this times the learning rate (the paper: 0)."""
    decay: Annotated[Literal["all", "kernels"] | None, arg(metavar="{all,kernels}")] = None
    """Which weights that shrinks: all, or kernels, without biases and norms."""

    def __post_init__(self) -> None:
        given = frozenset(field.name for field in fields(self) if getattr(self, field.name) != field.default)
        object.__setattr__(self, "given", given)  # what the user chose: no field, so it is in no record
        if self.recipe not in RECIPES or self.kind not in RECIPES[self.recipe]:
            raise InputError(f"there is no recipe {self.recipe!r} of {self.kind!r}; see python main.py recipes")
        for name, value in RECIPES[self.recipe][self.kind].deciding.items():
            if getattr(self, name, value) is None:
                object.__setattr__(self, name, value)

    @property
    def kind(self) -> str:
        """Whose record of the recipe it is."""
        return "finetune"


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    track: Annotated[Literal["mlflow", "wandb"] | None, arg(metavar="{mlflow,wandb}")] = None
    """Also send config.json, each line of metrics.jsonl and result.json to MLflow or to Weights & Biases
    of the extra [tracking] (docs/use.md). It decides nothing: a run may be continued with it or without."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(DataOptions, RecipeOptions, TrackOptions, RunOptions):
    """Pre-train an encoder with class prototypes, or with SimCLR or SupCon for comparison.

    Writes saved_models/<name>/encoder.keras: raw uint8 images in, 512 features out.

    Example: python main.py pretrain --variant query --dataset fashion_500
    """

    variant: Variant = "query"
    """query: 3/4 of a batch makes the prototypes, 1/4 is classified. standard: the whole batch is both.
    loo: each sample is left out of its own prototype. views: the prototypes of one augmented view classify the other.
    prl: PRL-2, hard views are classified by clean prototypes of all images; it brings a recipe of its own.
    simclr: NT-Xent, no labels. supcon: supervised contrastive."""
    init: Annotated[str | None, arg(metavar="RUN|FILE.keras|keras:NAME")] = None
    """Begin with the encoder of another run (its name, its folder, or latest), with a network of your own (a Keras file
    of a Functional model from raw images to a vector), or with one of keras.applications, such as
    keras:MobileNetV3Small. None: a ResNet-18 with random weights."""
    weights: File = None
    """--init keras:NAME: file of its weights without the top, .weights.h5 or .h5. None: random ones."""
    epochs: Count = None
    """Passes over the training images (the paper: 25)."""
    batch_size: Count = None
    """Images a step; an incomplete last batch is left out (the paper: 256). None: the recipe's, or of few images the
    largest power of two that leaves four batches an epoch."""
    classes_per_batch: Count = None
    """As many classes in each batch, with equally many images of each. None: the recipe's, or as they come; without
    --batch-size, and with more than half as many classes as images in a batch: as many as get four images."""
    learning_rate: Number = None
    """Of Adam (the paper: 0.001)."""
    augment: Annotated[Augmentation | None, arg(metavar=_POLICIES)] = None
    """none (the paper), light (flip, gentle crop), simclr, strong (shift, flip, cutout), strong-noflip, trivial (for
    photographs: one random operation, flip, cutout). None: the recipe's; the paper's is simclr for simclr and supcon,
    else none."""
    distance: Annotated[Distance | None, arg(metavar="{euclidean,squared,cosine}")] = None
    """Distance to the prototypes: euclidean (the paper), squared (Snell et al. 2017) or cosine. Not for prl, simclr
    and supcon, which compare by cosine."""
    temperature: Number = None
    """Logits are divided by it. None: 1 for prototypes (0.1 with --distance cosine, whose similarities are between
    -1 and 1), matched to the label smoothing for prl, 0.07 for simclr, 0.1 for supcon."""
    memory_momentum: Number = None
    """prl: share of the old embedding when an image of the memory is visited again (0.5)."""
    teacher_momentum: Number = None
    """prl: of the averaged encoder that fills the memory (0.99)."""
    learn_temperature: bool = False
    """prl: train the temperature too, from its value on, down to 0.01."""
    soft_weight: Number = None
    """prl: share of the target that is that encoder's own answer (0)."""
    projection_dim: Count = None
    """Output size of the projection head (512 -> 512 -> this); 0: no head, the loss acts on the features."""
    neck: Annotated[Literal["none", "norm"] | None, arg(metavar="{none,norm}")] = None
    """norm: a batch normalisation between features and projection, which spreads their cosines (the paper: none)."""
    stem: Annotated[Stem | None, arg(metavar=_STEMS)] = None
    """First layers of the ResNet, by how much they shrink the image: imagenet and small 4 times, stride2 2, stride1
    not at all; fine: stride2 for images under 64 px, else small. None: the recipe's; the paper's is small for images
    under 64 px, else imagenet."""
    width: Number = None
    """Multiplies the filters of all layers, and the 512 features (the paper: 1)."""
    precision: Precision = "float32"
    """Compute type of training; the saved encoder is always float32. bfloat16 is slow on a CPU without AVX-512."""
    checkpoint_steps: Count = None
    """Keep the state every N steps and after every epoch. None: after an epoch, as often as takes a twentieth of the
    time at most, and when the run is stopped."""
    deterministic: bool = False
    """Forbid operations that may answer differently twice. On a CPU the same seed gives the same bits without it."""
    unlabelled: bool = False
    """simclr only: pre-train on STL-10's 100,000 unlabelled images (needs its binary files)."""

    def __post_init__(self) -> None:
        own = self.temperature
        super().__post_init__()
        if own is None and self.distance != RECIPES[self.recipe][self.kind].distance:
            object.__setattr__(self, "temperature", None)  # the recipe's is that of its own distance

    @property
    def kind(self) -> str:
        return self.variant


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RecipeOptions, TrackOptions):
    epochs: Count = None
    """Passes over the training images (the paper: 25)."""
    batch_size: Count = None
    """Images a step (the paper: 128); a last batch of less than a quarter joins the one before."""
    learning_rate: Number = None
    """Of Adam (the paper: 0.001)."""
    augment: Annotated[Augmentation | None, arg(metavar=_POLICIES)] = None
    """none (the paper), light (flip, gentle crop), simclr, strong (shift, flip, cutout), strong-noflip, trivial (for
    photographs: one random operation, flip, cutout)."""
    precision: Precision = "float32"
    """Compute type of training; the saved model is always float32. bfloat16 is slow on a CPU without AVX-512."""
    checkpoint_steps: Count = None
    """Keep the state every N steps and after every epoch. None: after an epoch, as often as takes a twentieth of the
    time at most, and when the run is stopped."""
    deterministic: bool = False
    """Forbid operations that may answer differently twice. On a CPU the same seed gives the same bits without it."""
    test_each_epoch: bool = False
    """Also test after every epoch, as the paper did. The best of these is no result: it was chosen on test."""


@dataclass(frozen=True, kw_only=True)
class Finetune(RunDataOptions, TrainingOptions, RunOptions):
    """Train a classification head on a pre-trained encoder, and test it once at the end.

    Example: python main.py finetune --encoder latest --head linear --freeze
    """

    encoder: RunReference = "latest"
    """A pre-training run: its name, its folder, or latest."""
    head: Literal["linear", "mlp"] = "linear"
    """linear: 512 -> classes. mlp: 512 -> 256 -> 128 -> classes, with ReLU."""
    freeze: bool = True
    """Keep the encoder's weights and batch-normalisation statistics fixed; without augmentation each image
    is then encoded once. --no-freeze trains everything."""
    dropout: float = 0.0
    """Dropout before the head's last layer."""
    include_validation: bool = False
    """Train on train and validation together: for a configuration whose every choice has been made, as the
    winner of `tune`."""


@dataclass(frozen=True, kw_only=True)
class Baseline(DataOptions, TrainingOptions, RunOptions):
    """Train a supervised baseline from scratch, and test it once at the end.

    Example: python main.py baseline --model resnet18 --dataset fashion_500
    """

    model: Literal["mlp", "resnet18", "pca"] = "resnet18"
    """mlp: pixels -> 1024 -> 512 -> 256 -> classes. resnet18: the same network as the encoder. pca: logistic
    regression on 100 principal components of the pixels, the floor; nothing is learned by epochs."""
    stem: Annotated[Stem | None, arg(metavar=_STEMS)] = None
    """First layers of the ResNet, by how much they shrink the image: imagenet and small 4 times, stride2 2, stride1
    not at all; fine: stride2 for images under 64 px, else small. None: the recipe's; the paper's is small for images
    under 64 px, else imagenet."""
    width: Number = None
    """Multiplies the filters of all layers, and the 512 features (the paper: 1)."""

    @property
    def kind(self) -> str:
        return self.model


@dataclass(frozen=True, kw_only=True)
class Tune(RunDataOptions, RunOptions):
    """Search for the best fine-tuning: head, freezing, learning rate, weight decay, dropout, augmentation, encoder.

    Trials are compared on validation; the winner is trained again on train + validation and tested once.

    Example: python main.py tune --encoder latest --max-trials 20
    """

    encoder: Annotated[tuple[str, ...], arg(metavar="RUN...")] = ("latest",)
    """Pre-training runs, each a name, a folder, or latest; several become part of the search."""
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
    precision: Precision = "float32"
    """Compute type of training; the saved model is always float32. bfloat16 is slow on a CPU without AVX-512."""
    worker_timeout: int = 600
    """With several processes (docs/tuning.md): give up when nothing was heard for this many seconds."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(PictureOptions):
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
    training of each kind, and the paper's two best. Or single rows, as query-frozen-linear or resnet18."""
    folds: bool = False
    """Instead of seeds: STL-10's ten predefined folds of 1,000 training images."""
    epochs: int = 25
    """Passes over the training images, in pre-training and in fine-tuning (the paper: 25). Strong rows take their
    recipe's, and its batches."""
    batch_size: int = 256
    """Images a step of pre-training; fine-tuning takes half of it (the paper: 256 and 128)."""
    samples_per_class: Count = None
    """Train on this many images a class. None: all."""
    test_per_class: Count = None
    """Test on this many images a class. None: all (paper: 100)."""
    image_size: Size = None
    """Resize images to this many pixels a side, or to height x width. None: as they are."""
    jobs: Count = None
    """Train this many runs at the same time, each in a process of its own; the bits are the same. None: as many as pay
    off on this machine (two on two cores)."""
    dry_run: bool = False
    """Print the plan and how long it will take, from a few measured steps; train nothing."""
    name: Text = None
    """Name of the table's folder. None: table-DATASET, with -paper and -folds."""
    runs_dir: Annotated[Path, arg(metavar="PATH")] = Path("saved_models")
    """Folder that holds the table's folder; the table's runs are inside that."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(RunDataOptions):
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
    ways: Annotated[int, arg(metavar="N")] = 5
    """--few-shot: classes of an episode."""
    shots: Annotated[tuple[int, ...], arg(metavar="N...")] = (1, 5)
    """--few-shot: pictures of each class that are given."""
    queries: Annotated[int, arg(metavar="N")] = 15
    """--few-shot: pictures of each class that are asked for."""
    episodes: Annotated[int, arg(metavar="N")] = 2_000
    """--few-shot: how many, the same ones for every run with the same classes."""
    unknown: bool = False
    """Instead: does it notice pictures of classes that it does not know, those of held-out classes and of --far?"""
    far: Annotated[tuple[str, ...], arg(metavar="DATASET...")] = ()
    """--unknown: other data sets, whose test pictures are to be noticed."""
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
    """Also the encoder as it was before the run's training: untrained, or the pre-trained one of a fine-tuned run."""
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


@dataclass(frozen=True, kw_only=True)
class Teach(RunDataOptions):
    """Teach an encoder new classes from a few pictures each, in a second and without training.

    A class is the mean of its pictures' features, its prototype. The first lesson makes a new run of the encoder, which
    knows the classes that the encoder was trained on; later lessons, with the name of that run, change it. `predict`
    then says the class, "none of these" for what is like no class, and which taught picture is most like it.

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
    """Show what --recipe paper and --recipe strong decide, side by side."""

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


_OF_PRL = (
    "learn_temperature",
    "memory_momentum",
    "teacher_momentum",
    "soft_weight",
    "mix",
    "mix_alpha",
    "mix_probability",
)
_OF_SHIFT = ("shift", "relative_to", "seed")
_UNMIXED = {"mix": {"none": ("mix_alpha", "mix_probability")}, "schedule": {"constant": ("warmup",)}}
# What a choice leaves unused: command -> option -> its value -> options that then do nothing.
_UNUSED: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "pretrain": {
        "variant": {
            **dict.fromkeys((*PROTOTYPES, "views"), _OF_PRL),
            **dict.fromkeys(CONTRASTIVE, ("distance", *_OF_PRL)),
            "prl": ("distance",),
        },
        **_UNMIXED,
    },
    "evaluate": {
        "few_shot": {False: ("ways", "shots", "queries", "episodes"), True: ("unknown", "far", *_OF_SHIFT)},
        "unknown": {False: ("far",), True: _OF_SHIFT},
        "shift": {False: _OF_SHIFT[1:]},
    },
    "finetune": _UNMIXED,
    "baseline": {
        "model": {
            "mlp": ("stem", "width"),
            "pca": (
                *("recipe", "stem", "width", "epochs", "batch_size", "learning_rate", "average", "augment"),
                *("label_smoothing", "mix", "mix_alpha", "mix_probability", "schedule", "warmup", "weight_decay"),
                *("decay", "precision", "deterministic", "checkpoint_steps", "test_each_epoch", "verbose"),
            ),
        },
        **_UNMIXED,
    },
    "data": {
        "action": {
            "list": (*(f.name for f in fields(DataOptions) if f.name != "data_dir"), "seed", "clear", "json"),
            "cache": (*(f.name for f in fields(DataOptions) if f.name != "cache_dir"), "seed", "json"),
            **dict.fromkeys(("prepare", "verify"), ("clear",)),
        }
    },
}


def unused_options(command: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Options of the command that do nothing beside the others -> the choice because of which, as typed."""
    return {
        name: _as_chosen(command, choice, options[choice])
        for choice, values in _UNUSED.get(command, {}).items()
        for name in values.get(options.get(choice), ())
    }


def _as_chosen(command: str, choice: str, value: Any) -> str:
    flag = choice.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return value if command == "data" else f"--{flag} {value}"


def unused_but_given(options: object) -> tuple[str, str] | None:
    """(flag, choice) of the first option that is not at its default and does nothing; None if there is none."""
    unused = unused_options(type(options).__name__.lower(), vars(options))
    for field in fields(options):
        given = getattr(options, "given", None)
        chosen = getattr(options, field.name) != field.default if given is None else field.name in given
        if field.name in unused and chosen:
            no = "no-" if getattr(options, field.name) is False else ""
            return f"--{no}{field.name.replace('_', '-')}", unused[field.name]
    return None
