"""What the search may see of a data set: train and validation, and no test split to look at by mistake."""

from dataclasses import dataclass

from prl_keras.data import Dataset, Split


@dataclass(frozen=True, eq=False)
class SearchData:
    """A data set without its test split. Made by `search_data`, nowhere else."""

    train: Split
    validation: Split
    num_classes: int
    image_shape: tuple[int, ...]


def search_data(dataset: Dataset) -> SearchData:
    """The one place where a data set enters the search. Never reads `dataset.test`."""
    return SearchData(dataset.train, dataset.validation, dataset.num_classes, dataset.image_shape)
