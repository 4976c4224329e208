"""How picture files are read: what `load_dataset` passes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from prl_keras.data.images import Resize
from prl_keras.errors import InputError

Damaged = Literal["refuse", "skip"]
NO_LABELS = Path("none")  # instead of a table: the pictures have no classes


@dataclass(frozen=True, kw_only=True)
class Reading:
    """See `load_dataset`, which takes these as arguments."""

    image_size: int | Sequence[int] | None = None
    resize: Resize = "crop"
    labels: Path | None = None
    damaged: Damaged = "refuse"
    max_megapixels: float | None = None
    domains: bool = False
    hold_out_domain: str | None = None

    def __post_init__(self) -> None:
        if self.hold_out_domain is not None and not self.domains:
            raise InputError(f"hold_out_domain is {self.hold_out_domain!r}: add domains, which says where they are")
        if self.domains and self.labels == NO_LABELS:
            raise InputError("domains: these pictures have no classes (labels none); leave it out")
        for name, choices in (("resize", get_args(Resize)), ("damaged", get_args(Damaged))):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}: choose {' or '.join(choices)}")
        if self.max_megapixels is not None and not self.max_megapixels > 0:
            raise InputError(f"max_megapixels is {self.max_megapixels}: choose a number above 0")
