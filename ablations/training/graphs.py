"""Training steps as CUDA graphs: a step is captured once and then replayed by a single launch.

A step of a small network is some 250 operations, whose launches take the CPU longer than the GPU needs to compute them.
See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. The first steps of a training are computed
operation by operation on the stream of the capture: in them, libraries are initialised, kernels compiled and the
optimizer's state allocated. They are steps of the training like any other, so nothing has to be undone.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch

from ablations.common.wording import first_line
from ablations.config import OWN_GRAPHS, TrainConfig
from ablations.data.device import DeviceImages
from ablations.data.feeds import Feed, ResidentBatches, StreamedBatches
from ablations.training.learner import Learner
from ablations.training.mixing import mixing_of
from ablations.training.step import TrainingStep

Step = Callable[[], None]

EAGER, CAPTURED = "eager", "CUDA graph"
WARM_UP = 3  # steps, as in torch's examples of whole-network capture


def reason_against(recipe: TrainConfig, device: torch.device) -> str | None:
    """Returns why a recipe's steps are not captured on a device, as a clause; None where they are."""
    if device.type not in CAPTURES:
        return f"there are no CUDA graphs on {device.type}"
    if recipe.graphs == "off":
        return "train.graphs=off"
    if recipe.compile in OWN_GRAPHS:
        return f"train.compile={recipe.compile} uses CUDA graphs itself"
    return None


def feed_of(images: DeviceImages, recipe: TrainConfig, seed: int) -> Feed:
    """Returns the training batches of a cell in the form that suits how its steps are computed."""
    is_captured = reason_against(recipe, images.device) is None
    if is_captured and ResidentBatches.reason_against(images) is None:
        return ResidentBatches(images, recipe.batch_size, seed)
    return StreamedBatches(images, recipe.batch_size, seed, is_static=is_captured)


class StepRunner:
    """Takes training steps, from a CUDA graph where the recipe and the device allow it.

    Args:
        step: takes one training step over tensors of fixed address, without waiting for the device.
        undo: frees what a capture that failed may have left behind, such as gradients.
        recipe: with its `graphs`: `auto` computes the steps one by one where they cannot be captured, `on` raises.
        device: of the step.

    Attributes:
        execution: how steps are computed: `CUDA graph`, `eager`, or `eager: ` and why an attempt to capture failed.
    """

    def __init__(self, step: Step, undo: Step, recipe: TrainConfig, device: torch.device) -> None:
        self._step, self._undo = step, undo
        self._must = recipe.graphs == "on"
        reason = reason_against(recipe, device)
        self._capture = None if reason else CAPTURES[device.type]
        self._left = WARM_UP
        self._replay: Step | None = None
        self.execution = f"{EAGER}: {reason}" if reason and device.type in CAPTURES else EAGER

    def __call__(self) -> None:
        """Takes a step.

        Raises:
            torch.OutOfMemoryError: if the device lacks memory, for the capture too.
            RuntimeError: if the step cannot be captured, with `graphs=on`.
        """
        if self._replay is None and self._capture is not None and not self._left:
            self._try_capture(self._capture)
        if self._replay is not None:
            self._replay()
            return
        self._step()
        self._left -= self._left > 0

    def _try_capture(self, capture: Callable[[Step], Step]) -> None:
        self._capture = None
        try:
            self._replay = capture(self._step)
            self.execution = CAPTURED
            return
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of an operation that cannot be captured
            if self._must:
                raise RuntimeError(f"train.graphs=on: the step cannot be captured: {error}") from error
            self.execution = f"{EAGER}: the step cannot be captured ({first_line(error)})"
        self._undo()


def training_steps(
    learner: Learner, recipe: TrainConfig, images: DeviceImages, rates: Sequence[float], seed: int
) -> tuple[TrainingStep, StepRunner]:
    """Returns the steps of a training, and the runner that takes them; arguments as for `TrainingStep`."""
    step = TrainingStep(learner, feed_of(images, recipe, seed), mixing_of(images, recipe), rates, seed)
    return step, StepRunner(step, learner.optimizer.zero_grad, recipe, images.device)


def _capture_cuda(step: Step) -> Step:
    """Captures a step on the current stream, which must not be the default one, and returns what replays it.

    Raises:
        torch.OutOfMemoryError: if memory runs out.
        RuntimeError: if the step contains what cannot be captured.
    """
    gc.collect()  # graphs of earlier cells hold memory until they are destroyed
    graph = torch.cuda.CUDAGraph()
    failure: Exception | None = None
    try:
        # Other threads read images into pinned memory meanwhile: only this one's calls may spoil the capture.
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            try:
                step()
            except Exception as error:  # raised after the capture has been ended, which may raise another one
                failure = error
    except Exception as error:
        raise failure or error from None
    if failure is not None:
        raise failure
    return graph.replay


# How steps are captured, by type of device.
CAPTURES: dict[str, Callable[[Step], Step]] = {"cuda": _capture_cuda}
