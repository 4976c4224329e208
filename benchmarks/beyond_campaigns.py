"""What benchmarks/beyond.py trains and measures: the data, the budget and the methods of each campaign."""

from typing import Any, NamedTuple

from prl_keras.experiments.beyond import FEW_SHOT, SHIFT, UNKNOWN


class Campaign(NamedTuple):
    """data: of all trainings; epochs: of one view an image, half of them of two; measured: of `evaluate`, by file;
    domains: each left out once; by_name: asked apart of pictures whose file's name another domain has in training."""

    title: str
    data: str
    epochs: int
    measured: dict[str, str]
    recipe: str = "open"
    domains: tuple[str, ...] = ()
    by_name: bool = False

    @property
    def usual(self) -> str:
        """What errors are relative to."""
        return f"{self.recipe}-resnet18"

    @property
    def parts(self) -> tuple[str, ...]:
        """Trainings of a method and a seed."""
        return self.domains or ("",)


class Training(NamedTuple):
    """One line of the file, and its folder; part: the domain that is left out, if any."""

    method: str
    seed: int
    part: str = ""


def kind(method: str) -> str:
    """Its key in METHODS or MORE: without the recipe."""
    return method.partition("-")[2]


def training_of(line: dict[str, Any]) -> Training:
    return Training(line["method"], line["seed"], line.get("part", ""))


PLAIN, AS_USED = "evaluation.json", "as it is used"
_VENDORS = Campaign(
    "A vendor of emoji left out",
    "--dataset emoji/categories --domains --image-size 32",
    40,
    {PLAIN: ""},
    "strong",
    ("google", "twitter"),
)
CAMPAIGNS = {
    "fashion_500": Campaign(
        "fashion_500",
        "--dataset fashion_500 --hold-out-classes 5 --test-per-class 200",
        40,
        {FEW_SHOT: "--few-shot", UNKNOWN: "--unknown --far digits", SHIFT: "--shift"},
    ),
    "emoji": Campaign(
        "Emoji of two vendors",
        "--dataset emoji/names --labels emoji/names/labels.csv --domains --image-size 32 --hold-out-classes 0.3",
        30,
        {FEW_SHOT: "--few-shot --ways 20 --shots 1 --queries 1"},
    ),
    "shift": Campaign(
        "fashion_500 under corruptions", "--dataset fashion_500 --test-per-class 200", 20, {SHIFT: "--shift"}
    ),
    "vendors": _VENDORS,
    "vendors_open": _VENDORS._replace(recipe="open", by_name=True),
}
METHODS = {  # as the table's rows, but for the recipe -> command, and its share of the epochs: a step may see two views
    "resnet18": ("baseline", 1),
    "prl": ("pretrain --variant prl", 1),
    "loo": ("pretrain --variant loo", 1),
    "supcon": ("pretrain --variant supcon", 1 / 2),
    "simclr": ("pretrain --variant simclr", 1 / 2),
    "query": ("pretrain --variant query", 1),
}
MORE = {  # what a difference may come from: the budget (twice the images, or four times in larger batches), smoothing,
    # or that PRL-2's features are compared as they are, without a projection head
    "resnet18-no-smoothing": ("baseline --label-smoothing 0", 1),
    "prl-long": ("pretrain --variant prl", 2),
    "prl-projection": ("pretrain --variant prl --projection-dim 128 --neck none", 1),
    "prl-smoothed-projection": ("pretrain --variant prl --label-smoothing 0.1 --projection-dim 128 --neck none", 1),
    "supcon-128-classes-long": ("pretrain --variant supcon --classes-per-batch 128", 2),
}
