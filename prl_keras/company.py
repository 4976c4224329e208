"""The processes of one training: all are there before it begins, and each learns when another one is gone.

Every worker has one connection to the chief, at the chief's address in TF_CONFIG: it is made before TensorFlow listens
there, so no other port is needed. A thread sends a beat over it each second. Who dies closes its connections; who hangs
is silent. The chief tells the others. A process that waits for a collective operation cannot be interrupted, so the
thread ends it, with one line; files are written whole or not at all, so nothing is lost but the steps since the last
checkpoint. Only the standard library, and nothing of TensorFlow.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from prl_keras.errors import InputError
from prl_keras.runs.interruption import Stopped
from prl_keras.strategies import Cluster, own_folders

SILENCE = 20.0  # seconds without a beat, after which a worker counts as hung
PATIENCE = 600.0  # seconds until all have to be there: their data may take different times
_BEAT = 1.0  # seconds
_GRACE = 5.0  # seconds to end by itself, for who has probably found the same error as another one
_EXCUSING = 60.0  # seconds to wait for the others, for who has only to say why it cannot take part
_QUIET = 10.0  # seconds of waiting, after which a line says for whom
_LONGEST = 2**26  # bytes of a message
_HELLO = "prl_keras"
_AGAIN = "start all workers again with the same commands to continue from the last checkpoint"

End = Callable[[str, int], None]


class Company:
    """A context: all workers are there in it. Without an error each waits at its end until the chief has left.

    Args:
        cluster: of one worker, nothing here does anything.
        end: called in another thread, with a line and an exit code, when the rest of the training is impossible.
        silence, patience: seconds, see the constants.

    Raises (on entering):
        InputError: a worker did not come, or came twice; an address that cannot be used.
    """

    def __init__(self, cluster: Cluster, end: End | None = None, silence: float = SILENCE, patience: float = PATIENCE):
        self.workers, self.index = cluster
        self.end, self.silence, self.patience = end or end_process, silence, patience
        self.links: dict[int, _Link] = {}
        self._inbox = {index: queue.Queue() for index in range(len(self.workers))}
        self._over, self._ended, self._chief_left = threading.Event(), threading.Event(), threading.Event()
        self._needs_others = True
        self._early: list[dict[str, Any]] = []  # what came together with the welcome
        self._last_words: tuple[float, str, int] | None = None  # when to end at the latest, and with what
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Company:
        if len(self.workers) > 1:
            try:
                with _listening(self.workers[self.index], self.index) as server:
                    self._join() if self.index else self._admit(server)
            except BaseException:
                self._close()
                raise
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if self.links and kind is not None and kind.__module__.startswith("tensorflow"):
            self._explain(error)
        if self.links and error is None and self.index:
            self._chief_left.wait()
        self._leave(*_why(error))

    def name(self, index: int) -> str:
        """For people: number and address."""
        return f"worker {index} ({self.workers[index]})"

    def gather(self, value: Any) -> list[Any]:
        """What each worker gave, which JSON can hold, in their order; all have to call it."""
        if self.index:
            self.links[0].send({"say": value})
            return self._received(0)
        values = [value, *(self._received(index) for index in range(1, len(self.workers)))]
        self._tell({"all": values}, self.links.values())
        return values

    def check_equal(self, what: str, value: Any) -> None:
        """Raise InputError, in all workers, unless all have the value; JSON can hold it."""
        values = self.gather(value)
        for index, other in enumerate(values):
            if other != values[0]:
                raise InputError(f"{what}: {self.name(index)} has {other}, {self.name(0)} has {values[0]}")

    def needs_nobody(self) -> None:
        """The rest is this process's own: it is to be done even if the others die."""
        self._needs_others = False

    def _received(self, index: int) -> Any:
        value = self._inbox[index].get()
        if self._ended.is_set():
            raise ConnectionError(f"{self.name(index)} is gone")
        return value

    def _admit(self, server: socket.socket) -> None:
        """The chief waits for all others. Who leaves meanwhile may come again."""
        waiting = _Waiting(self.patience)
        with selectors.DefaultSelector() as ready:
            ready.register(server, selectors.EVENT_READ)
            while missing := self._names(index for index in range(1, len(self.workers)) if index not in self.links):
                for key, _ in ready.select(_BEAT):
                    if key.data is None:
                        link = _Link(server.accept()[0], self.silence)
                        ready.register(link.socket, selectors.EVENT_READ, link)
                        continue
                    try:
                        self._introduced(key.data)
                    except OSError:  # gone, or not one of us
                        ready.unregister(key.fileobj)
                        key.data.socket.close()
                        self.links.pop(key.data.index, None)
                self._tell({}, self.links.values())
                if problem := waiting(missing):
                    self._tell({"refused": problem}, self.links.values())
                    raise InputError(problem)
            for link in [key.data for key in ready.get_map().values() if key.data and key.data.index is None]:
                link.socket.close()
        self._tell({"welcome": True}, self.links.values())

    def _introduced(self, link: _Link) -> None:
        for message in link.read():
            if "workers" not in message:
                continue
            index, workers = message.get(_HELLO), message["workers"]
            if type(index) is not int:
                raise ConnectionAbortedError
            if workers != list(self.workers):
                problem = f"TF_CONFIG of worker {index} has the workers {workers}, that of the chief {[*self.workers]}"
            elif index in self.links or index not in range(1, len(self.workers)):
                problem = f"two processes have the TF_CONFIG of worker {index}"
            else:
                link.index, self.links[index] = index, link
                continue
            self._tell({"refused": problem}, {link, *self.links.values()})
            link.socket.close()
            raise InputError(problem)

    def _join(self) -> None:
        """Wait at the chief until all are there. Whoever else answers at its address is asked again later."""
        waiting, (host, _, port) = _Waiting(self.patience), self.workers[0].rpartition(":")
        while True:
            with suppress(OSError):
                link = _Link(socket.create_connection((host.strip("[]"), int(port)), self.silence), self.silence, 0)
                self.links[0] = link
                link.send({_HELLO: self.index, "workers": list(self.workers)})
                while True:
                    messages = iter(link.read())
                    for message in messages:
                        if "refused" in message:
                            raise InputError(message["refused"])
                        if "welcome" in message:
                            self._early = list(messages)
                            return
            self._close()
            if problem := waiting(f"{self.name(0)}, the chief,"):
                raise InputError(problem)
            time.sleep(0.2)

    def _names(self, indices: Iterable[int]) -> str:
        return ", ".join(map(self.name, indices))

    def _close(self) -> None:
        for link in self.links.values():
            link.socket.close()
        self.links.clear()

    def _watch(self) -> None:
        """The thread: hear the others, be heard, and end the process if one that is needed is gone."""
        seen = beaten = time.monotonic()
        with selectors.DefaultSelector() as ready:
            for link in self.links.values():
                ready.register(link.socket, selectors.EVENT_READ, link)
            for message in self._early:
                self._heard(self.links[0], message)
            while not self._over.is_set():
                for key, _ in ready.select(_BEAT / 4):
                    try:
                        for message in key.data.read():
                            self._heard(key.data, message)
                    except OSError:
                        ready.unregister(key.fileobj)
                        if not key.data.left:
                            self._lost(key.data, "ended without a word")
                now = time.monotonic()
                if now - seen > self.silence / 2:  # this process was stopped itself: what was said may be on its way
                    for link in self.links.values():
                        link.heard = now
                seen = now
                if now - beaten >= _BEAT:
                    beaten = now
                    self._tell({}, (link for link in self.links.values() if not link.left))
                for link in self.links.values():
                    if not link.left and now - link.heard > self.silence:
                        self._lost(link, f"was not heard of for {self.silence:.0f} s")
                if self._last_words is not None and now > self._last_words[0]:
                    self._end(*self._last_words[1:])

    def _heard(self, link: _Link, message: dict[str, Any]) -> None:
        if "say" in message or "all" in message:
            self._inbox[link.index].put(message.get("say", message.get("all")))
        elif "gone" in message:
            index, why = message["gone"], message["why"]
            link.left = link.left or index == link.index
            if why is None:
                if index == 0:
                    self._chief_left.set()
                return
            if self.index == 0:
                self._tell(message, (other for other in self.links.values() if other is not link))
            self._ends_soon(index, why, message["code"], _GRACE if message["itself"] else 0.0)

    def _lost(self, link: _Link, why: str) -> None:
        link.left = True
        if not self._needs_others:
            return
        self._tell({"gone": link.index, "why": why, "code": 1, "itself": False}, self.links.values())
        self._ends_soon(link.index, why, 1, 0.0)

    def _ends_soon(self, index: int, why: str, code: int, grace: float) -> None:
        if not self._needs_others or self._last_words is not None:
            return
        if index == self.index:
            line = f"the other workers ended, as this one, {self.name(index)}, {why}: {_AGAIN}"
        else:
            line = f"{self.name(index)} {why}" + ("" if code == 2 else f": {_AGAIN}")
        self._last_words = time.monotonic() + grace, line, code

    def _end(self, line: str, code: int) -> None:
        self._last_words = time.monotonic() + 1e9, line, code
        self._ended.set()
        self._chief_left.set()
        for inbox in self._inbox.values():
            inbox.put(None)
        self.end(line, code)

    def _explain(self, error: BaseException | None) -> None:
        """TensorFlow's error is the first sign of another worker's death, and does not say whose. Who it was is known
        in a moment; if all live, they have lost each other."""
        if self._ended.wait(self.silence + _GRACE) or not _is_of_the_network(error):
            return
        self._tell({"gone": self.index, "why": "lost the others", "code": 1, "itself": True}, self.links.values())
        said = " ".join(str(error).partition("aborted by:")[2].split())
        self._end(f"the workers lost each other ({said[:200] or type(error).__name__}): {_AGAIN}", 1)

    def _leave(self, why: str | None, code: int) -> None:
        """Say goodbye, and see that it arrives: a connection that is closed too early takes back what it said."""
        if not self.links:
            return
        self._over.set()
        self._thread.join()
        self._tell({"gone": self.index, "why": why, "code": code, "itself": True}, self.links.values())
        for link in self.links.values():
            with suppress(OSError):
                link.socket.shutdown(socket.SHUT_WR)
        patience = time.monotonic() + _BEAT
        for link in self.links.values():
            with suppress(OSError):
                link.socket.settimeout(max(0.01, patience - time.monotonic()))
                while time.monotonic() < patience:
                    link.read()
        self._close()

    def _tell(self, message: dict[str, Any], links: Iterable[_Link]) -> None:
        """Who cannot be told is found out when listening."""
        for link in list(links):
            with suppress(OSError):
                link.send(message)


def excuse(cluster: Cluster, error: InputError) -> None:
    """Come to the meeting only to say why this worker cannot take part. Who is not there within a minute waits on."""
    with suppress(InputError), Company(cluster, end=lambda line, code: None, patience=_EXCUSING):
        raise error


class _Link:
    """A connection, of messages that are lines of JSON; {} is a beat. left: its end is no surprise any more."""

    def __init__(self, connection: socket.socket, limit: float, index: int | None = None):
        self.socket, self.index, self.left = connection, index, False
        self.heard = time.monotonic()
        self._rest, self._lock = b"", threading.Lock()
        connection.settimeout(limit)

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """Messages that are there. Raises OSError at the end of the connection, and for what is no message."""
        received = self.socket.recv(2**16)
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + received).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise ConnectionAbortedError from error
        if not received or len(self._rest) > _LONGEST or not all(isinstance(message, dict) for message in messages):
            raise ConnectionAbortedError
        return messages


class _Waiting:
    """For somebody who has to come: after a while a line says for whom, and in the end a problem is returned."""

    def __init__(self, patience: float):
        self.patience, self.begun, self.said = patience, time.monotonic(), False

    def __call__(self, names: str) -> str | None:
        waited = time.monotonic() - self.begun
        if waited > _QUIET and not self.said:
            print(f"Waiting for {names.rstrip(',')}", flush=True)
            self.said = True
        return f"{names} did not come within {self.patience:.0f} s" if waited > self.patience else None


def _listening(address: str, index: int) -> socket.socket:
    """At a worker's own port. All but the chief only see whether TensorFlow will get it."""
    port = int(address.rpartition(":")[2])
    both = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    try:
        return socket.create_server(("", port), **both)
    except OSError as error:
        raise InputError(f"worker {index} cannot use port {port} of its TF_CONFIG: {error.strerror}") from error


def _why(error: BaseException | None) -> tuple[str | None, int]:
    """What the others are told, and their exit code; None: they know, or it is the end."""
    if error is None or (isinstance(error, Stopped) and error.where):  # after a step, as all have
        return None, 0
    if isinstance(error, InputError):
        return f"ended: {error}", 2
    if isinstance(error, Stopped | KeyboardInterrupt):
        return "was stopped", 1
    said = " ".join(str(error).split())[:200]
    return f"ended with {type(error).__name__}{said and ' ('}{said}{said and ')'}", 1


def _is_of_the_network(error: BaseException | None) -> bool:
    return type(error).__name__ in ("UnavailableError", "AbortedError", "CancelledError", "DeadlineExceededError")


def end_process(line: str, code: int) -> None:
    """Print the line and end at once, whatever the main thread waits for."""
    stream = sys.__stderr__
    with suppress(OSError, ValueError, AttributeError):
        start = "\r\x1b[K\x1b[?25h" if stream.isatty() else ""  # a bar may be there, and the cursor hidden
        print(f"{start}error: {line}", file=stream, flush=True)
    for folder in own_folders():
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(code)
