"""The ideas of benchmarks/ideas.py learn pictures that can be told apart, and leave the program as it was."""

import sys
from pathlib import Path

import numpy as np
import pytest

from prl_keras.config import Pretrain
from prl_keras.data.batches import Batches
from prl_keras.training import build

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from ideas import IDEAS, trained_with


@pytest.mark.slow
@pytest.mark.parametrize("idea", [*IDEAS, "pairs+several"])
def test_an_idea_learns_pictures_that_can_be_told_apart(idea: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 4
    images = (60 * labels[:, None, None, None] + rng.integers(0, 30, (64, 12, 12, 3))).astype("uint8")
    own = build.MemoryPretrainer
    with trained_with(idea):
        options = Pretrain(variant="prl", projection_dim=0, augment="none")
        pretrainer = build.build_pretrainer(options, (12, 12, 3), 4, labels, 40)
    assert build.MemoryPretrainer is own
    assert all(isinstance(pretrainer, IDEAS[name]) for name in idea.split("+"))
    pretrainer.compile("adam")
    history = pretrainer.fit(Batches(images, labels, 16, 0, with_rows=True), epochs=12, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert history["loss"][-1] < history["loss"][0]
    least = 0.2 if idea == "rotations" else 0.6  # noise looks the same however it is turned: one of four is right
    assert pretrainer.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"] > least
