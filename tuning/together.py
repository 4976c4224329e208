"""One search by any number of processes that share its folder: no server, the oracle's files are its state.

Whoever changes the state has a lease of it meanwhile, reads it anew before and writes it after. A trial is worked on
under a lease of its own, so that a dead process's trial is run again by another one.
"""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prl_keras.runs.leases import SECONDS, Lease, take, wait_for

ENDED = ("COMPLETED", "FAILED")


def own_name() -> str:
    """Of this process, among all that may share a search."""
    return f"{platform.node()}-{os.getpid()}"


class Sharing:
    """What an oracle needs to be one of several on the same files; leave it as a context, which frees its trials.

    Args:
        folder: of the leases.
        lost: called in another thread when this process was cut off, and another one has its trial.
        seconds: without a sign of life, after which a process counts as dead.
    """

    def __init__(self, folder: Path, lost: Callable[[Lease], None], seconds: float = SECONDS):
        self.folder, self.lost, self.seconds = folder, lost, seconds
        self._trials: dict[str, ExitStack] = {}

    def __enter__(self) -> "Sharing":
        return self

    def __exit__(self, *error: object) -> None:
        for trial in list(self._trials):
            self.free(trial)

    @contextmanager
    def state(self, oracle: Any) -> Iterator[None]:
        """The oracle as the last process left it, which nobody else changes."""
        with wait_for(self.folder, "oracle", self.seconds).kept(self.lost):
            if Path(oracle._get_oracle_fname()).exists():
                oracle.reload()
            yield

    def next_trial(self, oracle: Any, tuner_id: str, create: Callable[[str], Any]) -> Any:
        """One that nobody works on any more, else a new one; IDLE where all that is left is being worked on."""
        unended = [trial for _, trial in sorted(oracle.trials.items()) if trial.status not in ENDED]
        oracle.ongoing_trials = {
            other: oracle.trials[trial.trial_id]
            for other, trial in oracle.ongoing_trials.items()
            if other != tuner_id and oracle.trials[trial.trial_id].status not in ENDED
        }
        for trial in unended:
            if self._have(trial.trial_id):
                ongoing = {k: each for k, each in oracle.ongoing_trials.items() if each.trial_id != trial.trial_id}
                oracle.ongoing_trials = ongoing | {tuner_id: trial}
                trial.status = "RUNNING"
                oracle.save()
                return trial
        trial = create(tuner_id)
        if trial.status == "RUNNING":
            self._have(trial.trial_id)
        elif trial.status == "STOPPED" and unended:
            trial.status = "IDLE"
        return trial

    def free(self, trial_id: str) -> None:
        if stack := self._trials.pop(trial_id, None):
            stack.close()

    def _have(self, trial_id: str) -> bool:
        lease = take(self.folder, f"trial-{trial_id}", self.seconds)
        if lease is None:
            return False
        self._trials[trial_id] = stack = ExitStack()
        stack.enter_context(lease.kept(self.lost))
        return True
