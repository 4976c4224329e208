"""Networks of keras.applications by name, `--init keras:NAME`: which, and how each wants its images. No Keras here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prl_keras.errors import InputError

PREFIX = "keras:"
_KINDS = {  # how it wants images; as they are: it brings them to its range itself
    "as they are": (
        *("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"),
        *("EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3"),
        *("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L", "MobileNetV3Small", "MobileNetV3Large"),
    ),
    "-1 to 1": (
        *("MobileNet", "MobileNetV2", "ResNet50V2", "ResNet101V2", "ResNet152V2", "NASNetMobile", "NASNetLarge"),
        *("InceptionV3", "InceptionResNetV2", "Xception"),
    ),
    "mean and deviation": ("DenseNet121", "DenseNet169", "DenseNet201"),
    "blue first, mean": ("ResNet50", "ResNet101", "ResNet152", "VGG16", "VGG19"),
}
# Not EfficientNetB0 to B7: Keras builds them with one layer more for its own ImageNet weights than for a file of them.
WANTS = {name: kind for kind, names in _KINDS.items() for name in names}


@dataclass(frozen=True)
class Application:
    """A network by its name in keras.applications, with the weights of a file; None: random ones."""

    name: str
    weights: Path | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}"


def application(init: str, weights: Path | None) -> Application:
    """What `--init keras:NAME` with `--weights` names.

    Raises:
        InputError: such a network is not known here, or there is no such file.
    """
    name = init.removeprefix(PREFIX)
    if name not in WANTS:
        raise InputError(
            f"--init {init}: no network whose images are known here ({', '.join(WANTS)}): save another with what it "
            "wants of images inside, model.save('mine.keras'), and give --init mine.keras"
        )
    if weights is not None and not weights.name.endswith(".h5"):
        raise InputError(f"--weights {weights}: expected a .weights.h5 or .h5 file; a .keras file is for --init")
    if weights is not None and not weights.is_file():
        raise InputError(f"--weights {weights}: no such file")
    return Application(name, weights)
