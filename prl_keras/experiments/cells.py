"""The runs that the rows of the table are made of: their commands, and the order in which they are made."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from prl_keras.config import Baseline, Finetune, PictureOptions, Pretrain, Reproduce
from prl_keras.experiments.table import (
    BASELINES,
    BEYOND,
    ENCODERS,
    RECIPE_OF,
    STRONG_SUPERVISED,
    SUPERVISED,
    Row,
    choose_rows,
    of_beyond,
)
from prl_keras.runs import Run


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
    if isinstance(data["image_size"], list):  # as a record holds it
        data["image_size"] = tuple(data["image_size"])
    data |= {key: request.get(key) and Path(request[key]) for key in ("data_dir", "cache_dir")}
    data |= {each.name: request[each.name] for each in fields(PictureOptions) if each.name in request}
    held_out = {"hold_out_domain": request.get("hold_out_domain")}
    return data | held_out | {"hold_out_classes": tuple(request.get("hold_out_classes", ()))}
