"""The driver's side of a worker process on this machine: sends orders and receives messages through a pipe.

On Linux, workers are forked from a server process that has imported torch (`forkserver`): a worker starts within a
tenth of a second, and all workers share the memory of the imported modules. The server has a single thread and does not
initialize CUDA, so that forking it is safe. On other systems, each worker is a new interpreter (`spawn`).
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
from ablations.execution.launchers.serve import Message, Order, serve
from ablations.execution.launchers.worker import Place

_FORKS = sys.platform == "linux" and "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT: ForkServerContext | SpawnContext = (
    multiprocessing.get_context("forkserver") if _FORKS else multiprocessing.get_context("spawn")
)
# Modules used by cells that take seconds to import; torch imports its compiler with the first optimizer.
_PRELOADED = ["torch._dynamo", "ablations.training.train", "ablations.training.probe", serve.__module__]
_ATTEMPTS, _APART = 5, 0.5  # attempts to start a worker, and the seconds between them
_END = 2.0  # seconds to wait for a killed process to end
_started: WeakSet[WorkerProcess] = WeakSet()
_ends_server = False  # whether the server is ended at exit of this process


class WorkerGoneError(Exception):
    """A worker process has ended; the message gives the reason.

    Attributes:
        signal: the number of the signal that ended the process, otherwise 0.
    """

    def __init__(self, status: int | None) -> None:
        self.signal = -status if status is not None and status < 0 else 0
        super().__init__(_describe_end(status))


def start_server() -> None:
    """Starts the process from which workers are forked, unless it runs; it imports torch in the background."""
    if not _FORKS:
        return
    quiet_profiler()  # takes effect when torch is imported
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    with _blocked_signals():
        forkserver.ensure_running()
    global _ends_server
    if not _ends_server:
        atexit.register(_end_server, os.getpid())
        _ends_server = True


def _end_server(owner: int) -> None:
    """Ends the server and waits for it, so that tools such as `time` include the CPU time of its workers."""
    if os.getpid() != owner:
        return
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                child.kill()  # it blocks SIGINT and SIGTERM
                os.waitpid(child.pid, 0)


class WorkerProcess:
    """A worker process; the constructor starts it.

    Args:
        images: the data set, as returned by `data.sharing.mapped`, and its description; None for a worker that only
            calls functions without images.
        gpu: the only GPU visible to the worker, in the notation of CUDA_VISIBLE_DEVICES; None for all GPUs of this
            process.

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
            except (EOFError, ConnectionError) as error:  # the server was killed; the next attempt restarts it
                if attempt + 1 == _ATTEMPTS:
                    raise OSError(f"the process that forks workers ended: {error}") from None
                time.sleep(_APART)  # a killed process ends with a delay
        _started.add(self)

    def _start(self, images: tuple[DataSet, Place] | None) -> None:
        start_server()
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=serve, args=(theirs, images, self.gpu), daemon=True)
        try:
            # A fork waits until the server has imported torch; signals must be handled during the wait.
            with _no_main_module(), nullcontext() if _FORKS else _blocked_signals():
                self._process.start()
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def signs(self) -> tuple[Connection, int]:
        """Two objects to wait for: the first is ready when the worker sends a message, the second when it ends."""
        return self._connection, self._process.sentinel

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def send(self, order: Order) -> None:
        """Sends the worker an order; if the worker has ended, `receive` raises."""
        with suppress(OSError):
            self._connection.send(order)

    def receive(self) -> Message | None:
        """Returns the next message of the worker; None if it has not sent any.

        Raises:
            WorkerGoneError: if the worker has ended and all its messages have been read.
        """
        try:
            if self._connection.poll():
                message: Message = self._connection.recv()
                return message
            if self._process.is_alive():
                return None
        except (EOFError, OSError):
            pass
        self._process.join(_END)
        status = self._process.exitcode
        self.kill()  # the worker may have closed the pipe, or only the server may have ended
        raise WorkerGoneError(status)

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._connection.close()
        self._process.join(_END)


def wait(workers: Iterable[WorkerProcess], seconds: float) -> list[WorkerProcess]:
    """Waits for a message or the end of a worker; returns the ready workers, none after the timeout."""
    by_signs = {sign: worker for worker in workers for sign in worker.signs}
    ready = multiprocessing.connection.wait(list(by_signs), seconds)
    return list({id(by_signs[sign]): by_signs[sign] for sign in ready}.values())  # type: ignore[index]


def _kill_all() -> None:
    for worker in list(_started):
        worker.kill()


# Runs before multiprocessing joins its processes, as atexit calls the last registered function first.
atexit.register(_kill_all)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Blocks SIGINT and SIGTERM for processes started in this context, and defers them in this process.

    Ctrl-C reaches all processes of a terminal, and a batch system's SIGTERM all processes of a job; only the driver
    handles them.
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

    The import would rerun a script without `if __name__ == "__main__"`. Workers need no object of the main module.
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
