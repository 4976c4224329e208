"""Options of the commands that train: pretrain, finetune, baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import arg

from prl_keras.config.data import DataOptions, RunDataOptions
from prl_keras.config.kinds import (
    POLICIES,
    STEMS,
    UNLABELLED,
    Augmentation,
    Count,
    Distance,
    File,
    Number,
    Precision,
    RecipeName,
    RunReference,
    Stem,
    Strategy,
    Text,
    Variant,
)
from prl_keras.errors import InputError
from prl_keras.recipes import RECIPES


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


BASELINES = ("resnet18", "mlp", "pca")
CLASSIFIERS = (*BASELINES, "finetune")
KINDS = tuple(RECIPES["paper"])
VARIANTS = tuple(kind for kind in KINDS if kind not in CLASSIFIERS)


def by_recipe(name: str, kinds: Sequence[str]) -> Any:
    """What `--help` shows for an option without a value of its own: those of the recipes, of all kinds of training."""
    found: dict[str, list[str]] = {}  # values -> the recipes that have them
    for recipe, records in RECIPES.items():
        values = dict.fromkeys(getattr(records[kind], name) for kind in kinds)
        words = " or ".join("its own" if value is None else str(value) for value in values)
        found.setdefault(words, []).append(recipe)
    said = [f"{' and '.join(recipes)} {words}" for words, recipes in found.items()] if len(found) > 1 else [*found]
    return arg(help_behavior_hint=f"(default: {', '.join(said)})")


_Options = TypeVar("_Options", bound="RecipeOptions")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What a recipe decides and an option can overrule: None is the recipe's value, and is replaced by it here."""

    recipe: RecipeName = "paper"
    """paper: the report's settings. strong: the strongest training that we know for few labels. open: for classes to
    come, as of `teach` (docs/beyond.md). Every option that is given overrules it; the command `recipes` shows all."""
    average: bool = True
    """Keep the moving average of the weights over about the last tenth of the steps instead of what the last
    step leaves. --no-average: the last step, as in the paper."""
    label_smoothing: Annotated[Number, by_recipe("label_smoothing", KINDS)] = None
    """Share of the target that is spread over all classes (the paper: 0)."""
    mix: Annotated[
        Literal["none", "mixup", "cutmix"] | None, arg(metavar="{none,mixup,cutmix}"), by_recipe("mix", KINDS)
    ] = None
    """Mix each image with another one, and their labels: mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019); for
    prl the queries only (the paper: none)."""
    mix_alpha: Annotated[Number, by_recipe("mix_alpha", KINDS)] = None
    """Their shares are drawn from Beta(alpha, alpha) (1)."""
    mix_probability: Annotated[Number, by_recipe("mix_probability", KINDS)] = None
    """Share of the images that are mixed (0.5)."""
    schedule: Annotated[
        Literal["constant", "cosine"] | None, arg(metavar="{constant,cosine}"), by_recipe("schedule", KINDS)
    ] = None
    """Of the learning rate: constant (the paper), or cosine to 0 after a warm-up."""
    warmup: Annotated[Number, by_recipe("warmup", KINDS)] = None
    """Share of all steps in which a cosine schedule rises (0.05)."""
    weight_decay: Annotated[Number, by_recipe("weight_decay", KINDS)] = None
    """Of Adam, decoupled: each step also shrinks the weights by this times the learning rate (the paper: 0)."""
    decay: Annotated[Literal["all", "kernels"] | None, arg(metavar="{all,kernels}"), by_recipe("decay", KINDS)] = None
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


def changed(options: _Options, **values: Any) -> _Options:
    """`dataclasses.replace`, and what the user chose is still known."""
    found = replace(options, **values)
    object.__setattr__(found, "given", options.given)
    return found


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    track: Annotated[Literal["mlflow", "wandb"] | None, arg(metavar="{mlflow,wandb}")] = None
    """Also send config.json, each line of metrics.jsonl and result.json to MLflow or to Weights & Biases
    of the extra [tracking] (docs/use.md). It decides nothing: a run may be continued with it or without."""


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    strategy: Strategy = "none"
    """Share the training between devices, each with an equal part of every batch; the figures are those of one device.
    mirrored: all GPUs of this machine. multiworker: several machines, each of which runs this command with its own
    TF_CONFIG (docs/scaling.md). Not for prl, pca, --unlabelled, nor a head on features that were encoded once."""
    local_batch_norm: bool = False
    """mirrored and multiworker: normalise each device's images by themselves. Without waiting for each other, and no
    longer the same as on one device."""


@dataclass(frozen=True, kw_only=True)
class UnlabelledOptions:
    unlabelled: Annotated[bool | str, UNLABELLED] = False
    """Learn from images without labels too: the data set's own, if no word follows (fashion_500, and stl10 with its
    binary files), or a folder of pictures at any depth, or another data set's training images. prl: beside the labelled
    ones, by pseudo-labels; resnet18 and mlp: by FixMatch; simclr: instead of them."""
    unlabelled_ratio: Annotated[int, arg(metavar="N")] = 7
    """--unlabelled, not simclr: as many times the batch size of them in each step."""
    unlabelled_weight: float = 1.0
    """--unlabelled, not simclr: weight of their loss beside that of the labelled images."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(DataOptions, RecipeOptions, StrategyOptions, UnlabelledOptions, TrackOptions, RunOptions):
    """Pre-train an encoder with class prototypes, or with SimCLR or SupCon for comparison.

    Writes saved_models/<name>/encoder.keras: raw uint8 images in, 512 features out (256 by recipes but the paper's).

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
    epochs: Annotated[Count, by_recipe("epochs", VARIANTS)] = None
    """Passes over the training images (the paper: 25). None: the recipe's; strong and open take more of few images, 400
    at most, so that as many steps are left. 0 with --init: that encoder as it is becomes a run, for all commands."""
    batch_size: Annotated[Count, by_recipe("batch_size", VARIANTS)] = None
    """Images a step; an incomplete last batch is left out (the paper: 256). None: the recipe's, or of few images the
    largest power of two that leaves four batches an epoch."""
    classes_per_batch: Annotated[Count, by_recipe("classes_per_batch", VARIANTS)] = None
    """As many classes in each batch, with equally many images of each. None: the recipe's, or as they come; without
    --batch-size, and with more than half as many classes as images in a batch: as many as get four images, or two.
    Given without --batch-size: with two images of each at least, where labels count."""
    learning_rate: Annotated[Number, by_recipe("learning_rate", VARIANTS)] = None
    """Of Adam (the paper: 0.001)."""
    augment: Annotated[Augmentation | None, arg(metavar=POLICIES), by_recipe("augment", VARIANTS)] = None
    """none (the paper), light (flip, gentle crop), simclr, strong (shift, flip, cutout), strong-noflip, trivial (for
    photographs: one random operation, flip, cutout). None: the recipe's; the paper's is simclr for simclr and supcon,
    else none."""
    distance: Annotated[Distance | None, arg(metavar="{euclidean,squared,cosine}"), by_recipe("distance", VARIANTS)] = (
        None
    )
    """Distance to the prototypes: euclidean (the paper), squared (Snell et al. 2017) or cosine. Not for prl, simclr
    and supcon, which compare by cosine."""
    temperature: Annotated[Number, by_recipe("temperature", VARIANTS)] = None
    """Logits are divided by it. None: 1 for prototypes (0.1 with --distance cosine, whose similarities are between
    -1 and 1), matched to the label smoothing for prl (0.1 without), 0.07 for simclr, 0.1 for supcon."""
    memory_momentum: Annotated[Number, by_recipe("memory_momentum", VARIANTS)] = None
    """prl: share of the old embedding when an image of the memory is visited again (0.5)."""
    teacher_momentum: Annotated[Number, by_recipe("teacher_momentum", VARIANTS)] = None
    """prl: of the averaged encoder that fills the memory (0.99)."""
    learn_temperature: bool = False
    """prl: train the temperature too, from its value on, down to 0.01."""
    soft_weight: Annotated[Number, by_recipe("soft_weight", VARIANTS)] = None
    """prl: share of the target that is that encoder's own answer (0)."""
    projection_dim: Annotated[Count, by_recipe("projection_dim", VARIANTS)] = None
    """Output size of the projection head (512 -> 512 -> this); 0: no head, the loss acts on the features."""
    neck: Annotated[Literal["none", "norm"] | None, arg(metavar="{none,norm}"), by_recipe("neck", VARIANTS)] = None
    """norm: a batch normalisation between features and projection, which spreads their cosines (the paper: none)."""
    stem: Annotated[Stem | None, arg(metavar=STEMS), by_recipe("stem", VARIANTS)] = None
    """First layers of the ResNet, by how much they shrink the image: imagenet and small 4 times, stride2 2, stride1
    not at all; fine: stride2 for images under 64 px, else small. None: the recipe's; the paper's is small for images
    under 64 px, else imagenet."""
    width: Annotated[Number, by_recipe("width", VARIANTS)] = None
    """Multiplies the filters of all layers, and the 512 features (the paper: 1)."""
    precision: Precision = "auto"
    """Compute type of training; the saved encoder is always float32. auto: bfloat16 where the processor multiplies it
    by itself, which takes two thirds of the time; else float32, as bfloat16 takes many times as long there."""
    checkpoint_steps: Count = None
    """Keep the state every N steps and after every epoch. None: after an epoch, as often as takes a fiftieth of the
    time at most, and when the run is stopped."""
    deterministic: bool = False
    """Forbid operations that may answer differently twice. On a CPU the same seed gives the same bits without it."""

    def __post_init__(self) -> None:
        own = self.temperature
        super().__post_init__()
        if self.unlabelled and self.variant not in ("prl", "simclr"):
            raise InputError(
                f"--unlabelled needs --variant simclr or --variant prl: {self.variant} learns from labels alone"
            )
        if own is None and self.distance != RECIPES[self.recipe][self.kind].distance:
            object.__setattr__(self, "temperature", None)  # the recipe's is that of its own distance

    @property
    def kind(self) -> str:
        return self.variant


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RecipeOptions, StrategyOptions, TrackOptions):
    epochs: Annotated[Count, by_recipe("epochs", CLASSIFIERS)] = None
    """Passes over the training images (the paper: 25). None: the recipe's; strong and open take more of few images, 400
    at most, so that as many steps are left."""
    batch_size: Annotated[Count, by_recipe("batch_size", CLASSIFIERS)] = None
    """Images a step (the paper: 128); a last batch of less than a quarter joins the one before."""
    learning_rate: Annotated[Number, by_recipe("learning_rate", CLASSIFIERS)] = None
    """Of Adam (the paper: 0.001)."""
    augment: Annotated[Augmentation | None, arg(metavar=POLICIES), by_recipe("augment", CLASSIFIERS)] = None
    """none (the paper), light (flip, gentle crop), simclr, strong (shift, flip, cutout), strong-noflip, trivial (for
    photographs: one random operation, flip, cutout)."""
    precision: Precision = "auto"
    """Compute type of training; the saved model is always float32. auto: bfloat16 where the processor multiplies it
    by itself, which takes two thirds of the time; else float32, as bfloat16 takes many times as long there."""
    checkpoint_steps: Count = None
    """Keep the state every N steps and after every epoch. None: after an epoch, as often as takes a fiftieth of the
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
    """Any run with an encoder: its name or its folder; or latest, of those that were pre-trained."""
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
class Baseline(DataOptions, TrainingOptions, UnlabelledOptions, RunOptions):
    """Train a supervised baseline from scratch, and test it once at the end.

    Example: python main.py baseline --model resnet18 --dataset fashion_500
    """

    model: Literal["mlp", "resnet18", "pca"] = "resnet18"
    """mlp: pixels -> 1024 -> 512 -> 256 -> classes. resnet18: the same network as the encoder. pca: logistic
    regression on 100 principal components of the pixels, the floor; nothing is learned by epochs."""
    stem: Annotated[Stem | None, arg(metavar=STEMS), by_recipe("stem", BASELINES)] = None
    """First layers of the ResNet, by how much they shrink the image: imagenet and small 4 times, stride2 2, stride1
    not at all; fine: stride2 for images under 64 px, else small. None: the recipe's; the paper's is small for images
    under 64 px, else imagenet."""
    width: Annotated[Number, by_recipe("width", BASELINES)] = None
    """Multiplies the filters of all layers, and the 512 features (the paper: 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled and "label_smoothing" not in self.given:
            object.__setattr__(self, "label_smoothing", 0.0)  # with 0.1 no answer would reach FixMatch's 0.95

    @property
    def kind(self) -> str:
        return self.model
