"""One search in several processes: Keras Tuner's chief and workers, with an end in every case.

Which one a process is comes from the environment: KERASTUNER_TUNER_ID (chief, or any other name for a worker),
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT. Keras Tuner's own chief waits for workers that died, for ever,
and its workers wait for a chief that died, for an hour.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

from prl_keras.errors import InputError

Role = Literal["alone", "chief", "worker", "together"]
_VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def process_role() -> Role:
    """Raises InputError if only some of the variables are set, or the port is no number."""
    present = [name for name in _VARIABLES if os.environ.get(name)]
    if not present:
        return "alone"
    missing = [name for name in _VARIABLES if name not in present]
    if missing:
        raise InputError(f"{present[0]} is set but {missing[0]} is not: several processes need {', '.join(_VARIABLES)}")
    port = os.environ["KERASTUNER_ORACLE_PORT"]
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"KERASTUNER_ORACLE_PORT is {port!r}; expected a number from 1 to 65535")
    return "chief" if "chief" in process_name() else "worker"


def process_name() -> str:
    return os.environ["KERASTUNER_TUNER_ID"]


def address() -> str:
    return f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"


def serve(oracle: Any, timeout: float) -> None:
    """Hand out trials until all are done and every worker was told to stop.

    Raises:
        InputError: the address is taken, the search failed, or no worker was heard of for `timeout` seconds
            while trials remain.
    """
    import grpc
    from keras_tuner.src.distribute.oracle_chief import OracleServicer
    from keras_tuner.src.protos import get_service_grpc

    class Listener(grpc.ServerInterceptor):
        heard = time.monotonic()

        def intercept_service(self, continuation: Any, details: Any) -> Any:
            self.heard = time.monotonic()
            return continuation(details)

    listener, servicer = Listener(), OracleServicer(oracle)
    alone_on_port = (("grpc.so_reuseport", 0),)
    server = grpc.server(ThreadPoolExecutor(max_workers=1), interceptors=(listener,), options=alone_on_port)
    get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address())
    except RuntimeError as error:
        raise InputError(f"the chief cannot listen on {address()}: choose a free KERASTUNER_ORACLE_PORT") from error
    server.start()
    try:
        _wait(oracle, lambda: servicer.stop_triggered, lambda: time.monotonic() - listener.heard, timeout)
    finally:
        server.stop(grace=2).wait()


def _wait(oracle: Any, exhausted: Callable[[], bool], silence: Callable[[], float], timeout: float) -> None:
    while True:
        time.sleep(0.5)
        if oracle.failure:
            raise InputError(f"the search was given up: {last_line(oracle.failure)}")
        running = len(oracle.ongoing_trials)
        if exhausted() and not running and not oracle.tuner_ids:
            return
        if silence() > timeout:
            all_tried = exhausted() or len(oracle.trials) >= oracle.max_trials
            if all_tried and not running:
                return  # a worker died after its last trial
            raise InputError(
                f"no worker was heard of for {timeout} s, {running} trials are unfinished: "
                "start chief and workers again with --resume"
            )


def wait_until(happened: Callable[[], bool], timeout: float, complaint: str) -> None:
    """Raises InputError(complaint) after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not happened():
        if time.monotonic() > end:
            raise InputError(complaint)
        time.sleep(0.5)


@contextmanager
def chief_answers(timeout: float) -> Iterator[None]:
    """Wait for the chief; inside, turn its silence into one line.

    Raises:
        InputError: it cannot be reached within `timeout` seconds, or no longer.
    """
    import grpc
    from keras_tuner.src.distribute import oracle_client

    oracle_client.TIMEOUT = timeout
    complaint = f"the chief does not answer at {address()}; when it runs again, start this worker again"
    try:
        with grpc.insecure_channel(address()) as channel:
            grpc.channel_ready_future(channel).result(timeout)
        yield
    except (grpc.FutureTimeoutError, grpc.RpcError) as error:
        raise InputError(complaint) from error


def last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
