"""Kinds of values: how they are typed, and how `--help` calls them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

Count = Annotated[int | None, arg(metavar="N")]
Number = Annotated[float | None, arg(metavar="FLOAT")]
Text = Annotated[str | None, arg(metavar="NAME")]
Folder = Annotated[Path | None, arg(metavar="PATH")]
RunReference = Annotated[str, arg(metavar="RUN")]
File = Annotated[Path | None, arg(metavar="FILE")]


def typed(value: Any) -> str:
    """An option's value as it is typed."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def option_words(name: str, value: Any) -> list[str]:
    """An option and its value, as words of a command line."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    several = isinstance(value, tuple) and name != "image-size"  # which is one word, HxW
    return [f"--{name}", *(map(str, value) if several else [typed(value)])]


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


def _unlabelled(words: list[str]) -> bool | str:
    if len(words) > 1:
        raise ValueError(f"one folder or one data set, not {len(words)}")
    return words[0] if words else True


UNLABELLED = PrimitiveConstructorSpec(
    nargs="*",
    metavar="[PATH|NAME]",
    instance_from_str=_unlabelled,
    is_instance=lambda value: isinstance(value, bool | str),
    str_from_instance=lambda value: [value] if isinstance(value, str) else [],
)
Resize = Literal["crop", "pad", "stretch"]
Damaged = Literal["refuse", "skip"]
Variant = Literal["query", "standard", "loo", "views", "prl", "simclr", "supcon"]
Distance = Literal["euclidean", "squared", "cosine"]
RecipeName = Literal["paper", "strong", "open"]
Stem = Literal["imagenet", "small", "stride2", "stride1", "fine"]
Augmentation = Literal["none", "light", "simclr", "strong", "strong-noflip", "trivial"]
POLICIES = "{none,light,simclr,strong,strong-noflip,trivial}"
STEMS = "{imagenet,small,stride2,stride1,fine}"
Strategy = Literal["none", "mirrored", "multiworker"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16", "auto"]
