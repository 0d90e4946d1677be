"""The orders and answers of a worker process of this machine, and how it executes its orders.

It trains its cells in turns. A thread waits for orders all the time: an order to stop is seen while cells are trained,
and so is the end of the driver, however that ends, with which the worker ends itself.
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
    """An order to train a cell, beside others that it has; the worker answers with events, each with the cell's key."""

    job: Job


@dataclass(frozen=True)
class Stop:
    """An order to give up the cell of this key at its next step."""

    key: str


@dataclass(frozen=True)
class Call:
    """An order to call a function, pickled with its arguments; the worker answers with an `Answer`."""

    pickled: bytes
    threads: int


@dataclass(frozen=True)
class CallWithImages:
    """An order to call a function that gets the data set, too: `function(task, load, place)`."""

    function: Callable[[Any, Callable[[], DataSet], Place], Any]
    task: Any


@dataclass(frozen=True)
class Answer:
    """What a function returned, or the error that it raised.

    `ends_process` is whether the worker can do nothing more on its GPU.
    """

    value: Any = None
    error: Exception | None = None
    ends_process: bool = False


Order = Train | Stop | Call | CallWithImages
Said = tuple[str, Progress] | Answer


def serve(connection: Connection, images: tuple[DataSet, Place] | None, gpu: str | None = None) -> None:
    """Executes orders until the driver closes its end of the pipe, or ends; on the GPU that is named if one is."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before this process uses CUDA; what describes its GPU reads it, too
    for number in SIGNALS:  # which are the driver's to answer
        signal.signal(number, signal.SIG_IGN)
    orders: SimpleQueue[Order] = SimpleQueue()
    stopped: set[str] = set()
    threading.Thread(target=_listen, args=(connection, orders, stopped), daemon=True).start()
    cells = Turns()
    with suppress(ConnectionError):  # the driver has ended, which the thread has seen, too
        while True:
            while not cells or not orders.empty():
                order = orders.get()
                if isinstance(order, Train):
                    cells.begin(order.job.cell.key, train_steps(order.job, *_given(images)))
                else:
                    _answer(order, connection, images)
            while stopped:
                cells.stop(stopped.pop())
            for said in cells.take():
                connection.send(said)


def _listen(connection: Connection, orders: SimpleQueue[Order], stopped: set[str]) -> None:
    try:
        while True:
            order = connection.recv()
            if isinstance(order, Stop):
                stopped.add(order.key)
            else:
                orders.put(order)
    except (EOFError, OSError):
        os._exit(0)  # in the middle of a step, too


def _answer(order: Order, connection: Connection, images: tuple[DataSet, Place] | None) -> None:
    """Calls the function of an order, and sends what it returned."""
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
    assert images is not None  # as a worker without images gets no such order
    data, place = images
    return lambda: data, place


def _pickled_error(error: Exception) -> bytes:
    """Pickles an error as an answer; where it cannot be unpickled, a RuntimeError with its type and message."""
    error.add_note("".join(traceback.format_exception(error)))  # tracebacks themselves cannot be pickled
    ends_process = is_device_fault(error) or lost_device() is not None
    try:
        content = pickle.dumps(Answer(error=error, ends_process=ends_process))
        pickle.loads(content)
    except Exception:
        content = pickle.dumps(Answer(None, RuntimeError(f"{type(error).__name__}: {error}"), ends_process))
    return content
