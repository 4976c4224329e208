"""The encoder of a run as it was before its training."""

import keras

from prl_keras.config import Baseline, Pretrain
from prl_keras.errors import InputError
from prl_keras.models.layer_types import STOCK
from prl_keras.runs import Run
from prl_keras.runs.recorded import recorded_options
from prl_keras.training.build import build_encoder


def untrained_encoder(run: Run) -> keras.Model:
    """Built as in training, after the same seed, so the weights are those that training began with. Sets the seed.

    Raises:
        InputError: the run's config.json is damaged, or it is a PCA.
    """
    keras.utils.set_random_seed(run.part("options", "seed"))
    shape = tuple(run.part("data")["image_shape"])
    if run.part("command") == "pretrain":
        options = recorded_options(run, Pretrain)
        return build_encoder(options, shape)
    options = recorded_options(run, Baseline)
    if options.model == "pca":
        raise InputError(f"run {run.name!r} is a PCA, which has no state before training: leave out --before")
    return build_encoder(options, shape, STOCK)
