"""The rows of the table: what they are called, which there are, and which of them are asked for."""

from collections.abc import Iterable
from dataclasses import dataclass

from prl_keras.errors import InputError

# encoder -> (variant, augmentation; None: the variant's own)
ENCODERS = {
    "standard": ("standard", None),
    "query": ("query", None),
    "loo": ("loo", None),
    "simclr": ("simclr", None),
    "supcon": ("supcon", None),
    "standard-light": ("standard", "light"),
    "query-light": ("query", "light"),
    "loo-light": ("loo", "light"),
    "strong-prl": ("prl", None),
    "strong-loo": ("loo", None),
    "strong-supcon": ("supcon", None),
    "strong-simclr": ("simclr", None),
    "strong-query": ("query", None),
    **{f"open-{variant}": (variant, None) for variant in ("prl", "loo", "supcon", "simclr", "query")},
}
# baseline -> (model, augmentation)
BASELINES = {
    "pca": ("pca", "none"),
    "mlp": ("mlp", "none"),
    "resnet18": ("resnet18", "none"),
    "resnet18-light": ("resnet18", "light"),
    "strong-resnet18": ("resnet18", None),
    "open-resnet18": ("resnet18", None),
}
# By the strong recipe, and by the one for classes to come, which has no rows.
STRONG = ("strong-resnet18", "strong-prl", "strong-loo", "strong-supcon", "strong-simclr", "strong-query")
OPEN = tuple(name.replace("strong-", "open-") for name in STRONG)
RECIPE_OF = {**dict.fromkeys(STRONG, "strong"), **dict.fromkeys(OPEN, "open")}  # of the others: the paper's
BEYOND = "beyond"  # no rows: all strong encoders, or all open ones, on what they were not trained on
TITLES = {
    "pca": "PCA + logistic regression",
    "mlp": "Supervised MLP",
    "resnet18": "Supervised ResNet-18",
    "resnet18-light": "Supervised ResNet-18, light augmentation",
    "standard": "PRL standard",
    "query": "PRL query",
    "loo": "PRL leave-one-out",
    "simclr": "SimCLR",
    "supcon": "SupCon",
    "standard-light": "PRL standard, light augmentation",
    "query-light": "PRL query, light augmentation",
    "loo-light": "PRL leave-one-out, light augmentation",
    "strong-resnet18": "Strong ResNet-18",
    "strong-prl": "Strong PRL-2",
    "strong-loo": "Strong PRL leave-one-out",
    "strong-supcon": "Strong SupCon",
    "strong-simclr": "Strong SimCLR",
    "strong-query": "Strong PRL query",
}
TITLES |= {name: TITLES[strong].replace("Strong", "Open") for name, strong in zip(OPEN, STRONG, strict=True)}
# row -> the paper's number, test % and train % (PAPER: maximum over epochs, 1,000 images, one seed)
PAPER = {
    "mlp": (1, 41.4, 59.1),
    "resnet18": (2, 62.5, 98.4),
    "simclr-unfrozen-linear": (3, 64.6, 96.5),  # the report does not say how it was fine-tuned
    "standard-frozen-linear": (4, 60.7, 99.7),
    "standard-frozen-mlp": (5, 60.6, 99.8),
    "standard-unfrozen-linear": (6, 63.8, 99.9),
    "standard-unfrozen-mlp": (7, 60.2, 98.9),
    "query-unfrozen-linear": (8, 63.6, 99.7),
    "query-frozen-linear": (9, 64.2, 99.9),
    "query-unfrozen-mlp": (10, 63.8, 99.9),
    "query-frozen-mlp": (11, 63.1, 99.6),
}
OURS = (
    "pca",
    "resnet18-light",
    "simclr-frozen-linear",
    "supcon-frozen-linear",
    "supcon-unfrozen-linear",
    "loo-frozen-linear",
    "loo-frozen-mlp",
    "loo-unfrozen-linear",
    "loo-unfrozen-mlp",
    "standard-light-frozen-linear",
    "query-light-frozen-linear",
    "loo-light-frozen-linear",
)
# What every row is compared with.
SUPERVISED, SELF_SUPERVISED, STRONG_SUPERVISED = "resnet18", "simclr-unfrozen-linear", "strong-resnet18"
STRONG_OURS = "strong-prl-frozen-linear"


@dataclass(frozen=True)
class Row:
    """One line of the table: a baseline, or an encoder with a head."""

    key: str
    source: str  # of ENCODERS or BASELINES
    freeze: bool = False
    head: str = ""

    @property
    def title(self) -> str:
        if not self.head:
            return TITLES[self.source]
        frozen = "frozen" if self.freeze else "unfrozen"
        return f"{TITLES[self.source]}, {frozen}, {'MLP' if self.head == 'mlp' else self.head}"

    @property
    def short(self) -> str:
        """For the narrow places of pictures."""
        words = {"leave-one-out": "loo", "Supervised ": "", ", light augmentation": " (light)"}
        title = self.title
        for long, short in words.items():
            title = title.replace(long, short)
        return title

    @property
    def paper(self) -> tuple[int, float, float] | None:
        return PAPER.get(self.key)


def _all_rows() -> dict[str, Row]:
    rows = [Row(name, name) for name in BASELINES if name not in OPEN]
    for encoder in (name for name in ENCODERS if name not in OPEN):
        for freeze in (True, False):
            for head in ("linear", "mlp"):
                rows.append(Row(f"{encoder}-{'frozen' if freeze else 'unfrozen'}-{head}", encoder, freeze, head))
    by_key = {row.key: row for row in rows}
    order = [*PAPER, *OURS, *(key for key in by_key if key not in PAPER and key not in OURS)]
    return {key: by_key[key] for key in order}


ROWS = _all_rows()
GROUPS = {
    "paper": tuple(PAPER),
    "table": (*PAPER, *OURS),
    "all": tuple(key for key, row in ROWS.items() if row.source not in STRONG),
    "strong": (  # and the paper's two best
        *("strong-resnet18", *(f"{name}-frozen-linear" for name in STRONG[1:])),
        *("simclr-unfrozen-linear", "query-frozen-linear"),
    ),
}


def choose_rows(names: Iterable[str]) -> list[Row]:
    """Rows and groups of rows by name, in the table's order; none for "beyond".

    Raises:
        InputError: an unknown name, or others beside "beyond".
    """
    names, wanted = tuple(names), set()
    if BEYOND in names:
        if len(names) > 1:
            raise InputError("--rows beyond is a table of its own: leave out the other rows")
        return []
    for name in names:
        if name not in GROUPS and name not in ROWS:
            from difflib import get_close_matches

            close = get_close_matches(name, [*GROUPS, *ROWS], n=1, cutoff=0.4)
            hint = f" did you mean {close[0]}?" if close else ""
            raise InputError(f"--rows {name}: no such row;{hint} known: {', '.join([*GROUPS, BEYOND, *ROWS])}")
        wanted |= set(GROUPS.get(name, (name,)))
    return [row for key, row in ROWS.items() if key in wanted]


def rows_by_recipe(names: tuple[str, ...], recipe: str) -> tuple[str, ...]:
    """The names of `choose_rows` that a recipe's are called by; those that say it themselves stay.

    Raises:
        InputError: a row or group that the recipe has not.
    """
    if recipe == "paper" or BEYOND in names:
        return names
    if recipe == "open":
        raise InputError(f"--recipe open is for classes to come: add --rows {BEYOND}")
    return tuple(_strong_row(name) for name in names)


def _strong_row(name: str) -> str:
    if name == "table":
        return "strong"
    if name == "strong" or (name in ROWS and ROWS[name].source in STRONG):
        return name
    strong = f"strong-{name}"
    if (name in ROWS or name in GROUPS) and strong not in ROWS:
        known = [key for key, row in ROWS.items() if row.source in STRONG]
        raise InputError(f"--recipe strong: there is no {strong}; known: strong, {', '.join(known)}")
    return strong if strong in ROWS else name


def of_beyond(recipe: str) -> tuple[str, ...]:
    """The encoders of the table beyond the training classes."""
    return OPEN if recipe == "open" else STRONG
