"""The rows of the table, and the runs that they are made of."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from prl_keras.config import Baseline, Finetune, PictureOptions, Pretrain, Reproduce
from prl_keras.errors import InputError
from prl_keras.runs import Run

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


@dataclass(frozen=True)
class Replicate:
    """One repetition of the whole table: a seed, or one of STL-10's folds (with the same number as seed)."""

    seed: int
    fold: int | None = None

    @property
    def suffix(self) -> str:
        return f"s{self.seed}" if self.fold is None else f"f{self.fold}"


def replicates(options: Reproduce) -> list[Replicate]:
    if options.folds:
        return [Replicate(fold, fold) for fold in range(10)]
    seeds = options.seeds if options.seeds is not None else 3 if options.protocol == "honest" else 1
    return [Replicate(seed) for seed in range(seeds)]


@dataclass(frozen=True)
class Cell:
    """One run of the table; `labels`: not its training but its label-efficiency curve, kept in the same folder.

    request: the arguments of `load_dataset` that the run is made with.
    """

    name: str
    options: Pretrain | Finetune | Baseline
    labels: bool = False
    request: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def run(self) -> Run:
        return Run(self.options.runs_dir / self.name)

    @property
    def labels_file(self) -> Path:
        return self.run.path / "label_efficiency.json"

    @property
    def file(self) -> Path:
        """What is there when it is done."""
        return self.labels_file if self.labels else self.run.path / "result.json"

    @property
    def done(self) -> bool:
        return self.file.exists()

    @property
    def description(self) -> str:
        return f"{self.name}: label efficiency" if self.labels else self.name

    @property
    def gives(self) -> Path | None:
        """What others may need of it."""
        return None if self.labels else self.run.path

    @property
    def needs(self) -> Path | None:
        """The run that has to be there: of a curve its own, of a head its encoder."""
        if self.labels:
            return self.run.path
        return self.options.runs_dir / self.options.encoder if isinstance(self.options, Finetune) else None

    @property
    def lease(self) -> str:
        """Its name among those that processes take."""
        return f"{self.name}{'-labels' if self.labels else ''}"


def row_run(folder: Path, row: Row, replicate: Replicate) -> Run:
    return Run(folder / f"{row.key}-{replicate.suffix}")


def encoder_run(folder: Path, source: str, replicate: Replicate) -> Run:
    return Run(folder / f"{source}-{replicate.suffix}")


def of_beyond(recipe: str) -> tuple[str, ...]:
    """The encoders of the table beyond the training classes."""
    return OPEN if recipe == "open" else STRONG


def plan(options: Reproduce, request: dict, folder: Path) -> list[Cell]:
    """Every run in the order in which it is made: replicate by replicate, an encoder before its fine-tunings.

    Args:
        request: the arguments of `load_dataset` for the first replicate.
        folder: where the runs go.
    """
    cells: dict[tuple[str, bool], Cell] = {}
    for replicate in replicates(options):
        own = request | {"seed": replicate.seed, "fold": replicate.fold}
        sources = of_beyond(options.recipe) if BEYOND in options.rows else ()
        wanted = [_source_cell(options, own, folder, source, replicate) for source in sources]
        for row in choose_rows(options.rows):
            wanted += _cells_of_row(options, own, folder, row, replicate)
        for cell in wanted:
            cells.setdefault((cell.name, cell.labels), cell)
    return list(cells.values())


def _cells_of_row(options: Reproduce, request: dict, folder: Path, row: Row, replicate: Replicate) -> list[Cell]:
    source = _source_cell(options, request, folder, row.source, replicate)
    plain = options.protocol != "paper" and request.get("hold_out_domain") is None
    curved = plain and (row.source in ENCODERS or row.source in (SUPERVISED, STRONG_SUPERVISED))
    curve = [replace(source, labels=True)] if curved else []
    if row.source in BASELINES:
        return [source, *curve]
    name, augment = row_run(folder, row, replicate).name, ENCODERS[row.source][1]
    data = _data_options(request)
    finetune = Finetune(
        name=name,
        encoder=source.name,
        head=row.head,
        freeze=row.freeze,
        augment="none" if row.freeze else augment or "none",
        # of data only where they are: the encoder's may have been moved since it was trained
        **{key: data[key] for key in ("dataset", "data_dir", "cache_dir")},
        **_classifier_options(options, request, row.source),
        **_training_options(options, folder, row.source, replicate),
    )
    return [source, Cell(name, finetune, request=request), *curve]


def _source_cell(options: Reproduce, request: dict, folder: Path, source: str, replicate: Replicate) -> Cell:
    """The run of a baseline or of an encoder."""
    name = encoder_run(folder, source, replicate).name
    given = _data_options(request) | _training_options(options, folder, source, replicate) | {"name": name}
    if source in BASELINES:
        model, augment = BASELINES[source]
        tuned = _classifier_options(options, request, source)
        return Cell(name, Baseline(model=model, augment=augment, **given, **tuned), request=request)
    variant, augment = ENCODERS[source]
    size = {} if source in RECIPE_OF else {"batch_size": options.batch_size}
    return Cell(name, Pretrain(variant=variant, augment=augment, **given, **size), request=request)


def _training_options(options: Reproduce, folder: Path, source: str, replicate: Replicate) -> dict[str, Any]:
    """A strong or open one is as long, and in batches as large, as its recipe says."""
    how = {"recipe": RECIPE_OF[source]} if source in RECIPE_OF else {"epochs": options.epochs}
    how |= {"precision": options.precision, "average": options.protocol != "paper"}
    return how | {"runs_dir": folder, "seed": replicate.seed}


def _classifier_options(options: Reproduce, request: dict, source: str) -> dict[str, Any]:
    watched = options.protocol == "paper" or request.get("hold_out_domain") is not None
    size = {} if source in RECIPE_OF else {"batch_size": max(options.batch_size // 2, 2)}
    return {"test_each_epoch": watched, **size}


def _data_options(request: dict) -> dict[str, Any]:
    keys = ("validation_fraction", "samples_per_class", "test_per_class", "image_size", "fold")
    data = {key: request[key] for key in keys} | {"dataset": request["name"]}
    data |= {key: request.get(key) and Path(request[key]) for key in ("data_dir", "cache_dir")}
    data |= {each.name: request[each.name] for each in fields(PictureOptions) if each.name in request}
    held_out = {"hold_out_domain": request.get("hold_out_domain")}
    return data | held_out | {"hold_out_classes": tuple(request.get("hold_out_classes", ()))}
