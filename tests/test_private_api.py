"""What the program takes from libraries that they do not promise to keep: all of it, in one place.

A release that drops one of these fails here, with its name, and not in the middle of somebody's training.
"""

import ast
from importlib import import_module
from pathlib import Path

import keras
import keras_tuner as kt
import pytest

ROOT = Path(__file__).parents[1]
PRIVATE_MODULES = {
    "prl_keras/startup.py": {"tensorflow.python.framework"},
    "tuning/parallel.py": {"keras_tuner.src.distribute", "keras_tuner.src.distribute.oracle_chief"}
    | {"keras_tuner.src.protos"},
    "tuning/tuner.py": {"keras_tuner.src"},
}


def adam() -> keras.optimizers.Adam:
    optimizer = keras.optimizers.Adam()
    optimizer.build([keras.Variable([0.0])])
    return optimizer


def test_only_these_modules_reach_into_libraries() -> None:
    found: dict[str, set[str]] = {}
    for folder in ("prl_keras", "tuning"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                for name in names:
                    if ".src" in name or name.startswith(("tensorflow.python", "tensorboard.backend")):
                        found.setdefault(file.relative_to(ROOT).as_posix(), set()).add(name)
    assert found == PRIVATE_MODULES


@pytest.mark.parametrize(
    "name",
    [
        *("_get_variable_index", "_momentums", "_velocities", "_use_weight_decay", "built", "iterations"),
        "_update_model_variables_moving_average",
    ],
)
def test_adam_keeps_its_slots_where_the_kernel_looks_for_them(name: str) -> None:
    assert hasattr(adam(), name)


def test_a_loss_scale_is_called_dynamic_scale() -> None:
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    scaled.build([keras.Variable([0.0])])
    assert float(scaled.dynamic_scale) > 1


def test_a_mean_has_a_total_and_a_count_and_fit_calls_train_function() -> None:
    mean = keras.metrics.Mean()
    mean.update_state([1.0, 3.0])
    assert (float(mean.total), float(mean.count)) == (4.0, 2.0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.make_train_function()
    assert callable(model.train_function)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (kt.Hyperband, ["_deepcopy_callbacks", "_configure_tensorboard_dir", "_build_and_fit_model", "_is_worker"]),
        (kt.Hyperband, ["_get_tuner_fname", "run_trial", "on_trial_begin", "on_trial_end", "pre_create_trial"]),
        (kt.Oracle, ["_get_oracle_fname", "_get_trial_dir", "_save_trial", "populate_space", "end_trial", "reload"]),
    ],
)
def test_keras_tuner_has_the_methods_that_are_called_or_replaced(kind: type, names: list[str]) -> None:
    for name in names:
        assert hasattr(kind, name), name


def test_an_oracle_has_the_lists_that_are_repaired() -> None:
    oracle = kt.oracles.RandomSearchOracle(objective=kt.Objective("a", "max"), max_trials=1)
    for name in ("start_order", "end_order", "_retry_queue", "ongoing_trials", "tuner_ids", "trials"):
        assert hasattr(oracle, name), name


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras_tuner.src.config", "DEBUG"),
        ("keras_tuner.src.distribute.oracle_client", "TIMEOUT"),
        ("keras_tuner.src.distribute.oracle_chief", "OracleServicer"),
        ("keras_tuner.src.protos", "get_service_grpc"),
        ("tensorflow.python.framework.ops", "gradient_registry"),
    ],
)
def test_private_modules_have_what_is_taken_from_them(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)
