"""What a run's folder gets, sent to MLflow or Weights & Biases too: config.json, metrics.jsonl, result.json.

The tracker's own name of the run is kept in tracking.json, so that a run that is continued is continued there. Nothing
of this decides a result, and no failure of it ends a training.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from prl_keras.errors import InputError
from prl_keras.extras import installed
from prl_keras.files import write_json
from prl_keras.runs import Run
from prl_keras.runs.interruption import Stopped
from prl_keras.runs.records import Check, is_text, is_whole, read_record
from prl_keras.terminal import warn

PROJECT = "prl-keras"
End = Literal["FINISHED", "KILLED", "FAILED"]

# The environment decides; these are for what it leaves open: no long waiting, no output, nothing but what is sent here.
_ENVIRONMENT = {
    "mlflow": {
        **{"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"},
        "MLFLOW_ALLOW_FILE_STORE": "true",  # else newer versions refuse the folder that the user has named
    },
    "wandb": {
        **{"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_INIT_TIMEOUT": "30", "WANDB_LOGIN_TIMEOUT": "30"},
        **dict.fromkeys(("WANDB_DISABLE_CODE", "WANDB_DISABLE_GIT", "WANDB_X_DISABLE_META"), "true"),
        **{"WANDB_X_DISABLE_STATS": "true", "WANDB_X_SAVE_REQUIREMENTS": "false"},
    },
}
_RECORD: Check = {kind: {"id": is_text, "sent": is_whole} for kind in ("mlflow?", "wandb?")}
_SHOWN = 500  # letters of a reason
_LONGEST = 6000  # letters of a value, as MLflow allows
_LAST = "images_per_second"  # of a line: where a store writes value by value, the line is complete with it


class Mlflow:
    """`id`: of its run; `last`: the last epoch that it has."""

    def __init__(self, run: Run, known: dict[str, Any]):
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.client = mlflow.MlflowClient()
        self.id = known.get("id")
        if self.id is None or not self._is_there():
            self.id = self.client.create_run(self._experiment(), run_name=run.name).info.run_id
            params = [mlflow.entities.Param(key, str(value)[:_LONGEST]) for key, value in facts(run.config).items()]
            self.client.log_batch(self.id, params=params)
        self.client.update_run(self.id, status="RUNNING")
        self.last = max((metric.step for metric in self.client.get_metric_history(self.id, _LAST)), default=0)

    def _experiment(self) -> str:
        """Its id; not by `set_experiment`, which would set it for whatever else this process does."""
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        with suppress(MlflowException):  # it is there, perhaps since a moment ago
            return self.client.create_experiment(name)
        return self.client.get_experiment_by_name(name).experiment_id

    def _is_there(self) -> bool:
        """Another server, or a run that was removed there, is begun anew."""
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_run(self.id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def log(self, epoch: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, metrics=[Metric(key, value, now, epoch) for key, value in values.items()])

    def end(self, how: End, result: dict[str, Any] | None) -> None:
        from mlflow.entities import RunTag

        found = {f"result.{key}": value for key, value in flat(result or {}).items()}
        self.log(0, {key: float(value) for key, value in found.items() if _is_number(value)})
        tags = [RunTag(key, str(value)[:_LONGEST]) for key, value in found.items() if not _is_number(value)]
        self.client.log_batch(self.id, tags=tags)
        self.client.set_terminated(self.id, how)


class Wandb:
    """The same of Weights & Biases: a run of theirs stays open in this process until its result is there."""

    def __init__(self, run: Run, known: dict[str, Any]):
        import wandb

        self.last, open_run = known.get("sent", 0), wandb.run
        if open_run is None or open_run.id != known.get("id"):
            project, folder = os.environ.get("WANDB_PROJECT", PROJECT), os.environ.get("WANDB_DIR", str(run.path))
            again = {"id": known["id"], "resume": "allow"} if "id" in known else {}
            open_run = wandb.init(project=project, name=run.name, dir=folder, config=facts(run.config), **again)
        self.run, self.id = open_run, open_run.id

    def log(self, epoch: int, values: dict[str, float]) -> None:
        self.run.log(values, step=epoch, commit=True)

    def end(self, how: End, result: dict[str, Any] | None) -> None:
        if result is not None:
            self.run.summary.update({"result": result})
        if result is not None or how != "FINISHED":
            self.run.finish(exit_code=0 if how == "FINISHED" else 1)


_TRACKERS = {"mlflow": Mlflow, "wandb": Wandb}


class Tracking:
    """A tracker that fails is one warning, and is left alone for the rest of it.

    Args:
        kind: None: nothing is sent.
    """

    def __init__(self, run: Run, kind: str | None):
        self.run, self.kind, self.tracker, self.off = run, kind, None, kind is None

    def send(self, lines: Sequence[dict[str, Any]]) -> None:
        """Those of metrics.jsonl that the tracker has not got yet."""
        self._try(lambda: self._send(lines))

    def end(self, how: End, result: dict[str, Any] | None = None) -> None:
        self._try(lambda: self._opened().end(how, result))

    def _send(self, lines: Sequence[dict[str, Any]]) -> None:
        tracker = self._opened()
        for line in lines:
            if line["epoch"] > tracker.last:
                values = {key: float(value) for key, value in line.items() if key != "epoch" and value is not None}
                tracker.log(line["epoch"], values)
                tracker.last = line["epoch"]
                self._record()

    def _opened(self) -> Any:
        if self.tracker is None:
            for name, value in _ENVIRONMENT[self.kind].items():
                os.environ.setdefault(name, value)
            if self.kind == "mlflow" and not installed("sqlalchemy"):  # mlflow-skinny: its usual data base is not there
                os.environ.setdefault("MLFLOW_TRACKING_URI", Path("mlruns").absolute().as_uri())
            self.tracker = _TRACKERS[self.kind](self.run, self._known().get(self.kind, {}))
            self._record()
        return self.tracker

    def _known(self) -> dict[str, dict[str, Any]]:
        """Tracker -> its id of the run, and the last epoch that was sent; of a damaged file nothing."""
        with suppress(InputError):
            return read_record(self.run.path / "tracking.json", _RECORD)
        return {}

    def _record(self) -> None:
        own = {self.kind: {"id": self.tracker.id, "sent": self.tracker.last}}
        write_json(self.run.path / "tracking.json", self._known() | own)

    def _try(self, step: Callable[[], Any]) -> None:
        if self.off:
            return
        try:
            step()
        except Exception as error:
            self.off = True
            reason = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))[:_SHOWN] or type(error).__name__
            warn(f"--track {self.kind}: {reason} (the training goes on without it; metrics.jsonl has all)")


@contextmanager
def tracking(run: Run, kind: str | None) -> Iterator[Tracking]:
    """For the time of a training, whose end is told."""
    tracker = Tracking(run, kind)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, KeyboardInterrupt | Stopped) else "FAILED")
        raise
    tracker.end("FINISHED")


def send_result(run: Run, kind: str | None) -> None:
    """After result.json was written."""
    tracker = Tracking(run, kind)
    tracker.send(run.metrics)
    tracker.end("FINISHED", run.result)


def facts(config: dict[str, Any]) -> dict[str, Any]:
    """What a run's config.json says, one level deep: options by their names, data and versions with theirs before."""
    data = {key: value for key, value in config.get("data", {}).items() if key not in ("class_names", "skipped")}
    data["classes"] = len(config.get("data", {}).get("class_names", ()))
    rest = {"command": config.get("command"), "data": data, "versions": config.get("versions", {})}
    return flat(config.get("options", {}) | rest)


def flat(content: dict[str, Any], before: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; nothing of what is None."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{key}.")
        elif value is not None:
            found[f"{before}{key}"] = value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
