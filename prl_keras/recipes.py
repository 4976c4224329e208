"""Recipes: everything that decides a training but the data and the seed, as records of the lab. Imports nothing.

A recipe has a name, and one record for each kind of training: a variant of pre-training, a baseline's model, or
"finetune". The options of the commands take from here whatever was not given.
"""

from dataclasses import dataclass, fields, replace

NAMES = ("paper", "strong", "open")
MOST_EPOCHS = 400  # to which `least_images` may lengthen a training; of two views half as many


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training. The first fields say what it is and what it gave; the others decide it.

    what, why, source: in words. measured: the figure, with its data, n and seeds. cost: as measured.
    stem, width: of the ResNet-18, see `models.resnet18`; None: by the size of the images.
    neck: "norm", a batch normalisation between features and projection, or "none".
    classes_per_batch: as many classes in each batch, with equally many images; None: as they come.
    augment: a policy of `data.augment`; None: the variant's own.
    mix, mix_alpha, mix_probability: of `data.mixing`.
    temperature: of the logits; None: the loss's own.
    label_smoothing: share of the target that is spread over all classes.
    schedule, warmup: of the learning rate; the share of all steps in which it rises.
    weight_decay, decay: decoupled, of "all" weights or of "kernels", without biases and norms.
    average: keep the moving average of the weights over about the last tenth of the steps.
    least_images: about as many go through the encoder, each view counting, by more epochs where images are few.
    memory_momentum, teacher_momentum, soft_weight: of PRL-2, see `training.memory.MemoryPretrainer`.
    """

    what: str
    why: str
    source: str
    measured: str
    cost: str
    epochs: int = 25
    least_images: int = 0
    batch_size: int = 256
    classes_per_batch: int | None = None
    augment: str | None = None
    mix: str = "none"
    mix_alpha: float = 1.0
    mix_probability: float = 0.5
    stem: str | None = None
    width: float = 1.0
    projection_dim: int = 128
    neck: str = "none"
    distance: str = "euclidean"
    temperature: float | None = None
    label_smoothing: float = 0.0
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup: float = 0.05
    weight_decay: float = 0.0
    decay: str = "all"
    average: bool = True
    memory_momentum: float = 0.5
    teacher_momentum: float = 0.99
    soft_weight: float = 0.0

    @property
    def deciding(self) -> dict[str, object]:
        """Field -> value, without the words."""
        return {name: getattr(self, name) for name in DECIDING}


_WORDS = ("what", "why", "source", "measured", "cost")
DECIDING = tuple(field.name for field in fields(Recipe) if field.name not in _WORDS)

_REPORT = "the report's section on experiments; Adam 0.001, no schedule, no decay; averaging is ours"
_PAPER = Recipe(
    what="the paper's pre-training with class prototypes",
    why="the method as it was published: no augmentation, Euclidean distance",
    source=_REPORT,
    measured="see docs/results.md, the paper's table",
    cost="fashion_500: 112,500 images through the encoder",
)
_PAPER_VIEWS = replace(
    _PAPER,
    what="two augmented views of each image",
    why="the paper's rival, with its augmentation",
    augment="simclr",
    cost="fashion_500: 225,000 views through the encoder",
)
_PAPER_CLASSIFIER = replace(
    _PAPER,
    what="supervised training with cross-entropy",
    why="the paper's baselines and fine-tunings",
    batch_size=128,
    augment="none",
    cost="fashion_500: 112,500 images",
)

_FINAL = "fashion_500, {} % of 8,000 test images over 5 trainings, by {} (docs/results.md)"
_FROZEN = "a linear head, frozen"
_UNMEASURED = "not measured by itself"
_COST = (
    "fashion_500: 225,000 images through the encoder, {} minutes (median of 5, two at a time on two cores, bfloat16)"
)

# What all strong rows share. They differ in the loss, and in what goes with it: batches, projection, temperature,
# smoothing (docs/method.md has what trials say of these).
_STRONG = Recipe(
    what="cross-entropy, as strong as we know to make it",
    why="at 28 px the paper's ResNet sees maps of 7 to 1 pixels; with half its width and twice the positions a step "
    "costs no more. AdamW on kernels, cosine to 0, shifts, flips, cutout and label smoothing are the field's",
    source="Loshchilov & Hutter 2019, DeVries & Taylor 2017, Szegedy et al. 2016; 3x3 stem: He et al. 2016 for CIFAR",
    measured=_UNMEASURED,
    cost="fashion_500: 225,000 images through the encoder",
    epochs=50,
    least_images=225_000,
    batch_size=64,
    augment="strong",
    stem="fine",
    width=0.5,
    label_smoothing=0.1,
    learning_rate=2e-3,
    schedule="cosine",
    weight_decay=0.05,
    decay="kernels",
)
_STRONG_PRL = replace(
    _STRONG,
    what="PRL-2: prototypes of a memory of all images",
    why="the loss is the leave-one-out error of the nearest-mean classifier of the whole set; hard views are asked, "
    "clean ones remembered; the temperature is matched to the smoothing. A batch normalisation is the whole "
    "projection: the features themselves are compared, around their mean",
    source="our own; BNNeck: Luo et al. 2019; MoPro and PiCO for the moving memory, FixMatch for weak and strong views",
    measured=_FINAL.format("89.6 ± 0.2", "a linear head, frozen, 89.4 ± 0.4 by class means"),
    cost=_COST.format("5.6") + "; its averaged encoder looks at each image too",
    distance="cosine",
    batch_size=64,
    projection_dim=0,
    neck="norm",
)
_STRONG_BATCH = replace(
    _STRONG,
    what="prototypes of the batch, on the sphere",
    why="the paper's losses with everything else that the other strong rows have",
    source="Snell et al. 2017; leave-one-out: Laenen & Bertinetto 2021",
    distance="cosine",
    temperature=0.1,
    batch_size=250,
    classes_per_batch=10,
)
_STRONG_VIEWS = replace(
    _STRONG,
    what="contrastive learning of two views, as strong as we know to make it",
    why="a rival of its own kind; as many images through the encoder, so half the epochs",
    source="Chen et al. 2020, Khosla et al. 2020",
    epochs=25,
    batch_size=256,
    temperature=0.1,
    label_smoothing=0.0,
)
_STRONG_HEAD = replace(
    _PAPER_CLASSIFIER,
    what="a head on the features of a strong encoder",
    why="a frozen encoder's features change no more: cosine to 0 and a little decay are enough",
    source=_STRONG.source,
    measured="with each encoder's figure",
    cost="fashion_500: 112,500 images, encoded once where the encoder is frozen",
    least_images=112_500,
    label_smoothing=0.1,
    schedule="cosine",
    weight_decay=0.05,
    decay="kernels",
)

_CROSS = "prototypes of one view classify the other view"
_CROSS_WHY = "every image is support and query under different noise: the rival of SupCon's two views"
_CROSS_SOURCE = "our own; swapped views: Caron et al. 2020 (SwAV), Assran et al. 2021 (PAWS)"

# For classes to come: the strong ones with what trials of PRL-2, cross-entropy and SupCon on held-out classes prefer
# (docs/beyond_trials.md); the other prototypes have PRL-2's.
_SIMCLR_VIEWS = {
    "augment": "simclr",
    "why": "with SimCLR's views classes that were not trained on were told apart better",
    "measured": "docs/beyond.md",
    "cost": _UNMEASURED,
}
_OPEN = _SIMCLR_VIEWS | {
    "label_smoothing": 0.0,
    "why": f"{_SIMCLR_VIEWS['why']}, by prototypes without smoothing too: perhaps it pulls a class into one point",
}

PROTOTYPES = ("query", "standard", "loo")
CONTRASTIVE = ("simclr", "supcon")
VIEWS = (*CONTRASTIVE, "views")
RECIPES: dict[str, dict[str, Recipe]] = {
    "paper": {
        **dict.fromkeys(PROTOTYPES, _PAPER),
        **dict.fromkeys(CONTRASTIVE, _PAPER_VIEWS),
        "views": replace(_PAPER, what=_CROSS, why=_CROSS_WHY, source=_CROSS_SOURCE, augment="light", distance="cosine"),
        "prl": _STRONG_PRL,  # younger than the paper
        **dict.fromkeys(("mlp", "resnet18", "pca", "finetune"), _PAPER_CLASSIFIER),
    },
    "strong": {
        **dict.fromkeys(PROTOTYPES, _STRONG_BATCH),
        "loo": replace(
            _STRONG_BATCH, batch_size=100, measured=_FINAL.format("89.4 ± 0.3", _FROZEN), cost=_COST.format("3.7")
        ),
        "simclr": replace(
            _STRONG_VIEWS,
            augment="simclr",
            measured=_FINAL.format("77.6 ± 0.3", f"{_FROZEN}, 83.0 ± 0.2 by a linear probe"),
            cost=_COST.format("3.1"),
        ),
        "supcon": replace(  # batches of 256: a point less
            _STRONG_VIEWS, batch_size=64, measured=_FINAL.format("88.7 ± 0.2", _FROZEN), cost=_COST.format("3.2")
        ),
        "views": replace(_STRONG_BATCH, what=_CROSS, why=_CROSS_WHY, source=_CROSS_SOURCE, epochs=_STRONG_VIEWS.epochs),
        "prl": _STRONG_PRL,
        **dict.fromkeys(("mlp", "pca"), _STRONG),
        "resnet18": replace(_STRONG, measured=_FINAL.format("89.9 ± 0.4", "its own head"), cost=_COST.format("4.3")),
        "finetune": _STRONG_HEAD,
    },
}
_OF_STRONG = RECIPES["strong"]
RECIPES["open"] = _OF_STRONG | {
    **{kind: replace(_OF_STRONG[kind], **_OPEN) for kind in (*PROTOTYPES, "views")},
    **{kind: replace(_OF_STRONG[kind], **_SIMCLR_VIEWS) for kind in ("supcon", "resnet18")},
    "prl": replace(_STRONG_PRL, **_OPEN),
}
