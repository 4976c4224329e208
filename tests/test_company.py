"""The workers of a shared training: they meet, compare, and notice who is gone. Threads and processes without
TensorFlow, over real sockets."""

import json
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from faults import ROOT, free_ports

from prl_keras.company import Company, excuse
from prl_keras.errors import InputError
from prl_keras.runs.interruption import Stopped
from prl_keras.strategies import Cluster

SILENCE = 2.0


class UnavailableError(Exception):
    """As TensorFlow's."""


UnavailableError.__module__ = "tensorflow.python.framework.errors_impl"


def addresses(count: int) -> tuple[str, ...]:
    return tuple(f"127.0.0.1:{port}" for port in free_ports(count))


def together(
    works: list[Callable[[Company], Any] | None], workers: tuple[str, ...] = (), patience: float = 20.0
) -> tuple[list[Any], list[Any]]:
    """Each work in a thread of its own; None: such a worker never comes. What each returned or raised, and the line
    and the code with which each process would have been ended."""
    workers = workers or addresses(len(works))
    answers, ends = [None] * len(works), [None] * len(works)

    def run(index: int, work: Callable[[Company], Any]) -> None:
        def end(line: str, code: int) -> None:
            ends[index] = line, code

        try:
            with Company(Cluster(workers, index), end, SILENCE, patience) as company:
                answers[index] = work(company)
        except BaseException as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works) if pair[1] is not None]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return answers, ends


def dies(company: Company) -> None:
    """As a process that is killed: its connections are closed, without a word."""
    company._over.set()
    company._thread.join()
    company._close()


def waits(company: Company) -> str:
    """As in a collective operation, until the watch ends the process."""
    assert company._ended.wait(30)
    return "ended"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_learns_what_all_have(count: int) -> None:
    large = "x" * 300_000
    answers, ends = together([lambda c: [c.gather({"index": c.index, "large": large}), c.gather(c.index)]] * count)
    everything = [[{"index": index, "large": large} for index in range(count)], list(range(count))]
    assert answers == [everything] * count
    assert ends == [None] * count


def test_all_are_told_who_has_another_value() -> None:
    answers, ends = together([lambda c: c.check_equal("GPUs", 1 if c.index == 2 else 4)] * 3)
    assert {type(answer) for answer in answers} == {InputError}
    assert len({str(answer) for answer in answers}) == 1
    assert str(answers[0]).startswith("GPUs: worker 2 (127.0.0.1:")
    assert ends == [None] * 3


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_worker_that_dies_is_named_by_all_others(victim: int) -> None:
    workers = addresses(3)
    answers, ends = together([dies if index == victim else waits for index in range(3)], workers)
    for index in {0, 1, 2} - {victim}:
        line, code = ends[index]
        assert line.startswith(f"worker {victim} ({workers[victim]}) ended without a word: start all workers again")
        assert code == 1
        assert answers[index] == "ended"
    assert ends[victim] is None


@pytest.mark.parametrize("refused", [0, 1])
def test_who_is_refused_before_the_meeting_comes_only_to_say_so(refused: int) -> None:
    workers = addresses(2)
    excused = threading.Thread(target=excuse, args=(Cluster(workers, refused), InputError("no data 'x'")))
    excused.start()
    _, ends = together([None if index == refused else waits for index in range(2)], workers)
    excused.join(20)
    assert not excused.is_alive()
    assert ends[1 - refused] == (f"worker {refused} ({workers[refused]}) ended: no data 'x'", 2)


def test_who_is_refused_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prl_keras.company._EXCUSING", 0.5)
    for index in (0, 1):
        excuse(Cluster(addresses(2), index), InputError("no data"))


def test_an_error_of_one_ends_all_with_its_line() -> None:
    def refuses(company: Company) -> None:
        raise InputError("run 'x' is finished; nothing to resume")

    workers = addresses(3)
    _, ends = together([refuses, waits, waits], workers)
    line = f"worker 0 ({workers[0]}) ended: run 'x' is finished; nothing to resume"
    assert ends == [None, (line, 2), (line, 2)]


def test_an_error_that_all_have_is_each_one_s_own() -> None:
    def refuses(company: Company) -> None:
        company.gather(0)
        threading.Event().wait(company.index)
        raise InputError("the loss is not finite")

    answers, ends = together([refuses, refuses, refuses])
    assert [str(answer) for answer in answers] == ["the loss is not finite"] * 3
    assert ends == [None] * 3


def test_the_others_are_told_what_a_crash_says() -> None:
    def crashes(company: Company) -> None:
        raise OSError(28, "No space left")

    workers = addresses(3)
    _, ends = together([waits, waits, crashes], workers)
    line = f"worker 2 ({workers[2]}) ended with OSError ([Errno 28] No space left): start all workers again"
    assert [end and end[0].startswith(line) for end in ends] == [True, True, None]


def test_a_stop_outside_of_the_steps_is_told() -> None:
    def stopped(company: Company) -> None:
        raise Stopped(signal.SIGTERM)

    workers = addresses(2)
    _, ends = together([waits, stopped], workers)
    assert ends[0][0].startswith(f"worker 1 ({workers[1]}) was stopped")
    assert ends[0][1] == 1


def test_a_stop_after_a_step_is_no_failure_however_long_the_chief_saves() -> None:
    left = threading.Event()

    def saves(company: Company) -> None:
        assert not company._ended.wait(1.5 * SILENCE)
        assert left.is_set()
        raise Stopped(signal.SIGTERM, "x", "the last checkpoint is after epoch 1")

    def leaves(company: Company) -> None:
        left.set()
        raise Stopped(signal.SIGTERM, "x", "the last checkpoint is after epoch 1")

    answers, ends = together([saves, leaves])
    assert [type(answer) for answer in answers] == [Stopped, Stopped]
    assert ends == [None, None]


def test_all_wait_for_a_chief_who_finishes_alone() -> None:
    alone, died = threading.Event(), threading.Event()

    def finishes(company: Company) -> str:
        company.needs_nobody()
        alone.set()
        assert died.wait(30)
        assert not company._ended.wait(1.0)
        return "finished"

    def dies_then(company: Company) -> None:
        assert alone.wait(30)  # one that dies earlier ends the chief too
        dies(company)
        died.set()

    answers, ends = together([finishes, lambda c: "done", dies_then])
    assert answers[:2] == ["finished", "done"]
    assert ends[0] is None


def test_tensorflow_s_error_waits_for_the_name_of_who_is_gone() -> None:
    def fails(company: Company) -> None:
        raise UnavailableError("Collective ops is aborted by: connection reset\nmore")

    workers = addresses(2)
    _, ends = together([fails, lambda company: (threading.Event().wait(0.5), dies(company))], workers)
    assert ends[0][0].startswith(f"worker 1 ({workers[1]}) ended without a word")
    _, ends = together([fails, fails], workers)
    assert any(line.startswith("the workers lost each other (connection reset more)") for line, _ in ends)
    assert [code for _, code in ends] == [1, 1]


@pytest.mark.parametrize("absent", [0, 2])
def test_a_worker_that_does_not_come_is_named(absent: int) -> None:
    workers = addresses(3)
    works = [None if index == absent else (lambda company: None) for index in range(3)]
    answers, _ = together(works, workers, patience=1.0)
    for index in {0, 1, 2} - {absent}:
        assert isinstance(answers[index], InputError)
        assert str(answers[index]).startswith(f"worker {absent} ({workers[absent]})")
        assert str(answers[index]).endswith("did not come within 1 s")


def test_strangers_at_the_chief_s_port_are_sent_away() -> None:
    workers = addresses(2)
    host, _, port = workers[0].rpartition(":")
    answers: queue.Queue = queue.Queue()

    def chief() -> None:
        with Company(Cluster(workers, 0), answers.put, SILENCE, 20.0) as company:
            answers.put(company.gather(0))

    thread = threading.Thread(target=chief)
    thread.start()
    words = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"[1]\n",
        b'{"workers": 3}\n',
        b'{"prl_keras": [], "workers": []}\n',
        b"",
    ]
    for word in words:
        with _connected(host, int(port)) as stranger:
            stranger.sendall(word)
    with Company(Cluster(workers, 1), answers.put, SILENCE, 20.0) as company:
        assert company.gather(1) == [0, 1]
    thread.join(20)
    assert answers.get(timeout=1) == [0, 1]


def _connected(host: str, port: int) -> socket.socket:
    for _ in range(200):
        try:
            return socket.create_connection((host, port))
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    raise AssertionError("nobody listens")


def test_two_lists_of_workers_are_no_company() -> None:
    workers, other = addresses(2), addresses(1)[0]
    errors: dict[int, BaseException] = {}

    def run(index: int, listed: tuple[str, ...]) -> None:
        try:
            with Company(Cluster(listed, index), print, SILENCE, 20.0):
                pass
        except BaseException as error:
            errors[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in ((0, workers), (1, (*workers, other)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert isinstance(errors[0], InputError)
    assert str(errors[0]) == str(errors[1])
    assert other in str(errors[0])
    assert "TF_CONFIG of worker 1 has the workers" in str(errors[0])


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"worker 1 cannot use port {port} of its TF_CONFIG"),
            Company(Cluster((addresses(1)[0], f"127.0.0.1:{port}"), 1)),
        ):
            pass


WORKER = """
import sys, time
from prl_keras.company import Company
from prl_keras.strategies import Cluster
with Company(Cluster(tuple(sys.argv[2:]), int(sys.argv[1])), silence=2.0) as company:
    company.gather(1)
    print("there", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_hung_process_is_named_and_ends_itself_when_it_wakes(victim: int) -> None:
    workers = addresses(2)
    crew = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(index), *workers],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in (0, 1)
    ]
    try:
        for process in crew:
            assert process.stdout.readline() == "there\n"
        crew[victim].send_signal(signal.SIGSTOP)
        _, errors = crew[1 - victim].communicate(timeout=30)
        name = f"worker {victim} ({workers[victim]})"
        assert errors.startswith(f"error: {name} was not heard of for 2 s: start all workers again")
        assert errors.count("\n") == 1
        crew[victim].send_signal(signal.SIGCONT)
        _, errors = crew[victim].communicate(timeout=30)
        assert errors.startswith(f"error: the other workers ended, as this one, {name}, was not heard of for 2 s")
        assert errors.count("\n") == 1
        assert [process.returncode for process in crew] == [1, 1]
    finally:
        for process in crew:
            process.kill()
            process.wait()


def test_a_busy_main_thread_is_not_taken_for_hung() -> None:
    """Python alone, without a break: other threads get their turn."""

    def computes(company: Company) -> int:
        numbers = 0
        while not company._ended.wait(0) and numbers < 100:
            json.loads(json.dumps(list(range(20_000))))
            numbers += 1
        return numbers

    answers, ends = together([computes, computes])
    assert answers == [100, 100]
    assert ends == [None, None]
