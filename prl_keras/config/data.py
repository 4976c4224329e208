"""Which images: options that several commands share."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from prl_keras.config.kinds import Count, Damaged, File, Folder, Resize, Size, Text


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    labels: File = None
    """Of a folder: a CSV or TSV with the columns path and label, and if wanted split, group and domain (docs/data.md);
    or none: pictures at any depth without classes, for `pretrain --variant simclr`."""
    domains: bool = False
    """The folder is PATH/<domain>/<class>/*, or the table has a column domain (or group): where pictures are from, such
    as a camera, a hospital or a style."""
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
    domains: bool = False
    """The folder of --dataset has domains (see `pretrain --help`); those of the run's own data are known."""
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
    hold_out_domain: Text = None
    """--domains: test on all pictures of this domain, train and validate on the others. None: all domains are in
    train, validation and test."""
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
