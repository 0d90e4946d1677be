"""The main loop of a worker process on this machine, and the orders and answers that it exchanges with the driver.

The worker interleaves the training steps of its cells. A thread receives orders concurrently, so that the worker stops
cells during training and exits when the driver ends, even if the driver is killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from ablations.common.device_faults import is_device_fault, lost_device
from ablations.data import DataSet
from ablations.execution.interrupts import SIGNALS
from ablations.execution.launchers.turns import Turns
from ablations.execution.launchers.worker import Place, run_alone, train_steps
from ablations.training.events import Progress
from ablations.training.job import Job


@dataclass(frozen=True)
class Train:
    """An order to train a cell, concurrently with others; the worker sends events, each with the cell's key."""

    job: Job


@dataclass(frozen=True)
class Stop:
    """An order to stop the cell with this key at its next step."""

    key: str


@dataclass(frozen=True)
class Call:
    """An order to call a function, pickled with its arguments; the worker sends an `Answer`."""

    pickled: bytes
    threads: int


@dataclass(frozen=True)
class CallWithImages:
    """An order to call a function with the data set: `function(task, load, place)`."""

    function: Callable[[Any, Callable[[], DataSet], Place], Any]
    task: Any


@dataclass(frozen=True)
class Answer:
    """The return value of a function, or the error that it raised.

    `ends_process` is whether the worker can no longer use its GPU.
    """

    value: Any = None
    error: Exception | None = None
    ends_process: bool = False


Order = Train | Stop | Call | CallWithImages
Message = tuple[str, Progress] | Answer


def serve(connection: Connection, images: tuple[DataSet, Place] | None, gpu: str | None = None) -> None:
    """Executes orders, on GPU `gpu` if given, until the driver closes its end of the pipe or ends."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # must precede CUDA; also read to identify the GPU
    for number in SIGNALS:  # the driver handles them
        signal.signal(number, signal.SIG_IGN)
    orders: SimpleQueue[Order] = SimpleQueue()
    stopped: set[str] = set()
    threading.Thread(target=_listen, args=(connection, orders, stopped), daemon=True).start()
    cells = Turns()
    with suppress(ConnectionError):  # the driver has ended; the thread exits the process
        while True:
            while not cells or not orders.empty():
                order = orders.get()
                if isinstance(order, Train):
                    cells.begin(order.job.cell.key, train_steps(order.job, *_given(images)))
                else:
                    _answer(order, connection, images)
            while stopped:
                cells.stop(stopped.pop())
            for message in cells.take():
                connection.send(message)


def _listen(connection: Connection, orders: SimpleQueue[Order], stopped: set[str]) -> None:
    try:
        while True:
            order = connection.recv()
            if isinstance(order, Stop):
                stopped.add(order.key)
            else:
                orders.put(order)
    except (EOFError, OSError):
        os._exit(0)  # even during a training step


def _answer(order: Order, connection: Connection, images: tuple[DataSet, Place] | None) -> None:
    """Calls the function of an order, and sends its result."""
    try:
        if isinstance(order, CallWithImages):
            value = order.function(order.task, *_given(images))
        else:
            assert isinstance(order, Call)
            function, arguments = pickle.loads(order.pickled)
            value = run_alone(order.threads, function, *arguments)
        content = pickle.dumps(Answer(value, ends_process=lost_device() is not None))
    except Exception as error:
        content = _pickled_error(error)
    connection.send_bytes(content)


def _given(images: tuple[DataSet, Place] | None) -> tuple[Callable[[], DataSet], Place]:
    assert images is not None  # a worker without images receives no such order
    data, place = images
    return lambda: data, place


def _pickled_error(error: Exception) -> bytes:
    """Pickles an error as an answer; if it cannot be unpickled, as a RuntimeError with its type and message."""
    error.add_note("".join(traceback.format_exception(error)))  # tracebacks themselves cannot be pickled
    ends_process = is_device_fault(error) or lost_device() is not None
    try:
        content = pickle.dumps(Answer(error=error, ends_process=ends_process))
        pickle.loads(content)
    except Exception:
        content = pickle.dumps(Answer(None, RuntimeError(f"{type(error).__name__}: {error}"), ends_process))
    return content
