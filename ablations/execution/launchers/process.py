"""A worker process of this machine, from the driver's end: orders go through a pipe, and what it says comes back.

On Linux, workers are forked from a server process that has imported torch (`forkserver`): a worker starts within a
tenth of a second, and all of them share the memory of what was imported. The server has a single thread and does not
initialise CUDA, so that forking it is safe. Elsewhere, each worker is started afresh (`spawn`).
"""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from types import ModuleType
from weakref import WeakSet

import psutil

from ablations.common.process import quiet_profiler
from ablations.data import DataSet
from ablations.execution.interrupts import SIGNALS
from ablations.execution.launchers.serve import Order, Said, serve
from ablations.execution.launchers.worker import Place

_FORKS = sys.platform == "linux" and "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver") if _FORKS else multiprocessing.get_context("spawn")
)
# What cells need of what takes seconds to import; torch imports its compiler when the first optimizer is made.
_PRELOADED = ["torch._dynamo", "ablations.training.train", "ablations.training.probe", serve.__module__]
_ATTEMPTS, _APART = 5, 0.5  # at starting a worker, and the seconds between them
_END = 2.0  # seconds that a killed process may take to be gone
_started: WeakSet[WorkerProcess] = WeakSet()
_ends_server = False  # whether the server will be ended with this process


class WorkerGoneError(Exception):
    """A worker process has ended; the message gives the reason.

    Attributes:
        signal: the number of the signal that ended it, 0 where it ended otherwise.
    """

    def __init__(self, status: int | None) -> None:
        self.signal = -status if status is not None and status < 0 else 0
        super().__init__(_describe_end(status))


def start_server() -> None:
    """Starts the process that workers are forked from, if there is none; it imports torch in the background."""
    if not _FORKS:
        return
    quiet_profiler()  # read when torch is imported
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    with _blocked_signals():
        forkserver.ensure_running()
    global _ends_server
    if not _ends_server:
        atexit.register(_end_server, os.getpid())
        _ends_server = True


def _end_server(owner: int) -> None:
    """Ends the server and waits for it, so that the time of its workers counts as this process's, as in `time`."""
    if os.getpid() != owner:
        return
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                child.kill()  # it blocks the signals that end a process more gently
                os.waitpid(child.pid, 0)


class WorkerProcess:
    """A worker process, started at once.

    Args:
        images: the data set, as `data.sharing.mapped` makes it, and what the worker is told of it; None for a worker
            that only calls functions which need no images.
        gpu: the only one that the worker sees, as CUDA_VISIBLE_DEVICES names it; None for all of this process.

    Raises:
        OSError: if no process can be started.
    """

    def __init__(self, images: tuple[DataSet, Place] | None, gpu: str | None = None) -> None:
        self.gpu = gpu
        for attempt in range(_ATTEMPTS):
            try:
                self._start(images)
                break
            except AssertionError as error:  # in a daemonic process
                raise OSError(str(error)) from None
            except (EOFError, ConnectionError) as error:  # the server was killed meanwhile; there will be another one
                if attempt + 1 == _ATTEMPTS:
                    raise OSError(f"the process that forks workers ended: {error}") from None
                time.sleep(_APART)  # a killed process takes a moment to be gone
        _started.add(self)

    def _start(self, images: tuple[DataSet, Place] | None) -> None:
        start_server()
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=serve, args=(theirs, images, self.gpu), daemon=True)
        try:
            # A fork waits until the server has imported torch, meanwhile signals are to be answered.
            with _no_main_module(), nullcontext() if _FORKS else _blocked_signals():
                self._process.start()
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def signs(self) -> tuple[Connection, int]:
        """What becomes ready when it says something, and when it ends."""
        return self._connection, self._process.sentinel

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def send(self, order: Order) -> None:
        """Gives the worker an order; if it has ended, `receive` says so."""
        with suppress(OSError):
            self._connection.send(order)

    def receive(self) -> Said | None:
        """Returns what the worker says next, None where there is nothing to be read.

        Raises:
            WorkerGoneError: if the worker has ended, and all that it said has been read.
        """
        try:
            if self._connection.poll():
                said: Said = self._connection.recv()
                return said
            if self._process.is_alive():
                return None
        except (EOFError, OSError):
            pass
        self._process.join(_END)
        status = self._process.exitcode
        self.kill()  # where it has closed the pipe, or the server alone has ended
        raise WorkerGoneError(status)

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._connection.close()
        self._process.join(_END)


def wait(workers: Iterable[WorkerProcess], seconds: float) -> list[WorkerProcess]:
    """Returns the workers that say something or have ended, as soon as there is one; none after so many seconds."""
    by_signs = {sign: worker for worker in workers for sign in worker.signs}
    ready = multiprocessing.connection.wait(list(by_signs), seconds)
    return list({id(by_signs[sign]): by_signs[sign] for sign in ready}.values())  # type: ignore[index]


def _kill_all() -> None:
    for worker in list(_started):
        worker.kill()


# Before multiprocessing waits for its processes, as what was registered last is called first.
atexit.register(_kill_all)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Blocks signals for processes that are started meanwhile, and postpones them for this one.

    Ctrl-C goes to all processes of a terminal, and a batch system's SIGTERM to all of a job: they are the driver's to
    answer.
    """
    resource_tracker.ensure_running()  # first, as it unblocks the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keeps multiprocessing from importing the main module in a new process.

    It would run a script again that has no `if __name__ == "__main__"`. Nothing that workers get is defined there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _describe_end(status: int | None) -> str:
    if status is None:
        return "the worker process does not respond."
    if status >= 0:
        return f"the worker process ended with exit status {status}."
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the worker process was killed by {name}."
