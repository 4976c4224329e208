"""Run by test_strategy_commands.py in a process of its own, as devices are made before TensorFlow starts: a command
that is stopped within its first epoch and continued, and the same one undisturbed, or parts of that: workers meet once
in a process. Prints one JSON object."""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import small_network

from prl_keras.cli import main
from prl_keras.runs import Run
from prl_keras.startup import start_keras
from prl_keras.strategies import cluster, is_chief

TINY = ["--dataset", "digits", "--samples-per-class", "12", "--image-size", "16", "--epochs", "2"]
ONE = ["--test-per-class", "3", "--batch-size", "38"]  # three steps, the last one of 44 images
OF_PRE = ["finetune", "--encoder", "pre", "--augment", "light", "--epochs", "2", "--batch-size", "30"]
CASES = {
    "mlp": ["baseline", "--model", "mlp", *TINY[:-1], "1", *ONE],
    "baseline": ["baseline", "--recipe", "strong", "--mix", "cutmix", "--width", "0.25", *TINY, *ONE],
    "pretrain": ["pretrain", "--variant", "query", "--augment", "light", "--width", "0.25", *TINY, *ONE],
    "local": ["pretrain", "--variant", "supcon", "--local-batch-norm", "--width", "0.25", *TINY, *ONE],
    "finetune": [*OF_PRE, "--no-freeze", "--head", "mlp", "--dropout", "0.2", "--test-each-epoch"],
    "frozen": [*OF_PRE, "--include-validation"],  # the last batch has an odd number of images
}
TIMING = ("seconds", "images_per_second")


def kept(run: Run) -> tuple[list[np.ndarray], list[dict], dict]:
    """Weights, figures of each epoch, accuracies at the end."""
    from prl_keras.models.storage import load_model

    file = run.classifier_file if run.classifier_file.exists() else run.encoder_file
    lines = [{key: value for key, value in line.items() if key not in TIMING} for line in run.metrics]
    return load_model(file).get_weights(), lines, run.result.get("accuracy") or run.result["saved_encoder"]


def stopped(arguments: list[str], by: int) -> int:
    """Exit code of a command that is sent SIGTERM in the first step of its first epoch, if it is process `by`."""
    from prl_keras.training import callbacks

    usual, sent = callbacks.FiniteGuard.on_train_batch_end, []

    def kill(self: callbacks.FiniteGuard, batch: int, logs: dict | None = None) -> None:
        usual(self, batch, logs)
        if not sent and by == (cluster().index if cluster() else 0):
            sent.append(os.kill(os.getpid(), signal.SIGTERM))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.FiniteGuard, "on_train_batch_end", kill)
        return main(arguments)


PARTS = ("pre", "stop", "broken", "whole", "compare")


def answered(case: str, strategy: str, folder: Path, parts: list[str]) -> dict:
    """What a test asks: exit codes of the parts, and whether weights and figures are the same bits."""
    where = ["--runs-dir", str(folder), "--strategy", strategy]
    codes = []
    for part in parts:
        if part == "stop":
            codes.append(stopped([*CASES[case], *where, "--name", "broken"], by=1 if strategy == "multiworker" else 0))
        elif part != "compare" and (part != "pre" or case in ("finetune", "frozen")):
            codes.append(main([*CASES["pretrain" if part == "pre" else case], *where, "--name", part]))
    if "compare" not in parts or not is_chief(strategy):
        return {"codes": codes}
    broken, whole = (kept(Run(folder / name)) for name in ("broken", "whole"))
    return {
        "codes": codes,
        "same": all(map(np.array_equal, broken[0], whole[0])) and broken[1:] == whole[1:],
        "epochs": len(whole[1]),
        "runs": sorted(path.name for path in folder.iterdir() if path.is_dir()),
    }


if __name__ == "__main__":
    if sys.argv[2] == "mirrored":
        start_keras(strategy="mirrored")
    shown = io.StringIO()
    with small_network(), contextlib.redirect_stdout(shown):
        try:
            answer = answered(*sys.argv[1:3], Path(sys.argv[3]), sys.argv[4:] or list(PARTS))
        finally:
            print(shown.getvalue(), file=sys.stderr)
    print(json.dumps(answer))
