"""Training steps as CUDA graphs: a step is captured once and then replayed by a single launch.

A step of a small network has about 250 operations, and the CPU needs longer to launch them than the GPU to compute
them. See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. The first steps of a training run eagerly on
the stream of the capture: they initialize libraries, compile kernels and allocate the optimizer's state. They are
ordinary training steps, so no state has to be restored.
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
WARM_UP = 3  # eager steps before the capture, as in torch's examples of whole-network capture


def reason_against(recipe: TrainConfig, device: torch.device) -> str | None:
    """Returns the reason why a recipe's steps are not captured on a device, as a clause; None if they are captured."""
    if device.type not in CAPTURES:
        return f"there are no CUDA graphs on {device.type}"
    if recipe.graphs == "off":
        return "train.graphs=off"
    if recipe.compile in OWN_GRAPHS:
        return f"train.compile={recipe.compile} uses CUDA graphs itself"
    return None


def feed_of(images: DeviceImages, recipe: TrainConfig, seed: int) -> Feed:
    """Returns the feed of a cell: resident on the device if steps are captured and the data set allows it."""
    is_captured = reason_against(recipe, images.device) is None
    if is_captured and ResidentBatches.reason_against(images) is None:
        return ResidentBatches(images, recipe.batch_size, seed)
    return StreamedBatches(images, recipe.batch_size, seed, is_static=is_captured)


class StepRunner:
    """Runs training steps, as a CUDA graph if the recipe and the device allow it.

    Args:
        step: runs one training step on tensors with fixed addresses, without synchronizing with the device.
        undo: frees what a failed capture may leave behind, such as gradients.
        recipe: the training recipe; if steps cannot be captured, `graphs=auto` runs them eagerly and `on` raises.
        device: the device of the step.

    Attributes:
        execution: `CUDA graph`, `eager`, or `eager: ` and the reason why steps are not captured.
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
        """Runs a step.

        Raises:
            torch.OutOfMemoryError: if the device runs out of memory, in a step or in the capture.
            RuntimeError: if the step cannot be captured and `graphs` is `on`.
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
        except Exception as error:  # raised by an operation that cannot be captured
            if self._must:
                raise RuntimeError(f"train.graphs=on: the step cannot be captured: {error}") from error
            self.execution = f"{EAGER}: the step cannot be captured ({first_line(error)})"
        self._undo()


def training_steps(
    learner: Learner, recipe: TrainConfig, images: DeviceImages, rates: Sequence[float], seed: int
) -> tuple[TrainingStep, StepRunner]:
    """Returns the step of a training, and its runner; arguments as for `TrainingStep`."""
    step = TrainingStep(learner, feed_of(images, recipe, seed), mixing_of(images, recipe), rates, seed)
    return step, StepRunner(step, learner.optimizer.zero_grad, recipe, images.device)


def _capture_cuda(step: Step) -> Step:
    """Captures a step on the current stream, which must not be the default one, and returns its replay.

    Raises:
        torch.OutOfMemoryError: if memory runs out.
        RuntimeError: if an operation of the step cannot be captured.
    """
    gc.collect()  # graphs of earlier cells hold memory until they are destroyed
    graph = torch.cuda.CUDAGraph()
    failure: Exception | None = None
    try:
        # Other threads may copy images into pinned memory during the capture; "thread_local" ignores their CUDA calls.
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            try:
                step()
            except Exception as error:  # raised again after the end of the capture, which may itself raise
                failure = error
    except Exception as error:
        raise failure or error from None
    if failure is not None:
        raise failure
    return graph.replay


# Capture function by device type.
CAPTURES: dict[str, Callable[[Step], Step]] = {"cuda": _capture_cuda}
