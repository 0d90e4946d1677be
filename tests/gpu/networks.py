"""Measures training steps with attention relative to plain networks: eager, captured as a CUDA graph, and compiled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ablations.config import TrainConfig
from ablations.measure.capture import captured
from ablations.measure.speed import Act, Make
from ablations.training.learner import Learner
from tests.gpu.measuring import Options, Task, alone, compared, on_gpu, ratio
from tests.gpu.results import Value

CLASSES = 10
PLAIN = "plain network"
EQUAL = "equal weights after 8 steps, 3 eager and 5 replayed (1 = yes)"
GPU_MS, KERNELS = "kernels' time, ms a step", "kernels a step"
MODES = ("default", "reduce-overhead")


class Setting(NamedTuple):
    """A backbone, its batch size, and the groups of its shuffle attention."""

    model: str
    batch: int
    side: int
    groups: int

    @property
    def attentions(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Attention settings by name, with the implementation of shuffle attention (`train.fused`)."""
        sa = {"name": "sa", "groups": self.groups, "stages": "all", "position": "residual"}
        return {
            PLAIN: ({"name": "none"}, "auto"),
            "SA by kernels": (sa, "auto"),
            "SA by torch": (sa, "off"),
            "SE": ({"name": "se"}, "auto"),
        }


def large(options: Options) -> Sequence[Task]:
    """Returns the tasks for SA-ResNet-50 in channels_last and bfloat16."""
    setting = Setting("resnet8", 4, 32, 4) if options.tiny else Setting("resnet50", 128, 224, 64)
    return list(_relative(setting, options, seconds=15.0, copies=3))


def small(options: Options) -> Sequence[Task]:
    """Returns the tasks for a network on images of CIFAR's size."""
    setting = Setting("resnet8", 8, 32, 4) if options.tiny else Setting("resnet20", 128, 32, 4)
    tasks = list(_relative(setting, options, seconds=4.0, copies=6))
    protocol = f"{_title(setting)}, SA by kernels"
    tasks.append(Task(setting.model, "eager steps", (EQUAL,), protocol, partial(_equal, setting, options)))
    names = (GPU_MS, KERNELS)
    tasks.append(Task(setting.model, "", names, f"{protocol}, profiled", partial(_profiled, setting, options)))
    for mode in () if options.tiny else MODES:
        quantities = ("training step, ms", "compiling, s")
        task = Task(
            f"{setting.model}, torch.compile {mode}",
            "",
            quantities,
            protocol,
            partial(_compiled, setting, mode, options),
        )
        tasks.append(task)
    return tasks


def _title(setting: Setting) -> str:
    return f"training steps of {setting.batch} images of {setting.side} pixels, bfloat16 and channels_last on a GPU"


def _relative(setting: Setting, options: Options, *, seconds: float, copies: int) -> Iterator[Task]:
    ways = ("eager", "captured")
    for name in setting.attentions:
        quantities = tuple(f"training step, {way}{', ms' if name == PLAIN else ''}" for way in ways)
        baseline = "" if name == PLAIN else PLAIN
        act = partial(_steps, setting, name, options, seconds, copies)
        yield Task(f"{setting.model}, {name}", baseline, quantities, _title(setting), act)


def _steps(setting: Setting, name: str, options: Options, seconds: float, copies: int) -> Mapping[str, Value]:
    found = {}
    for way in ("eager", "captured") if options.device == "cuda" else ("eager",):
        makes: dict[str, Make] = {
            subject: partial(_step, setting, subject, options) for subject in dict.fromkeys((PLAIN, name))
        }
        if way == "captured":
            makes = {each: on_gpu(make) for each, make in makes.items()}
        if name == PLAIN:
            found[f"training step, {way}, ms"] = alone(makes[PLAIN], options, seconds / 2)
        else:
            samples = compared(makes, PLAIN, options, seconds=seconds, copies=copies)
            found[f"training step, {way}"] = ratio(samples, name)
    return found


def _equal(setting: Setting, options: Options) -> Mapping[str, Value]:
    if options.device != "cuda":
        return {}
    eager, replayed = (_learner(setting, "SA by kernels", options) for _ in range(2))
    batch = _batch(setting, options)
    for _ in range(8):
        eager.step(*batch)
    replay = captured(partial(replayed.step, *batch), warm_ups=3)
    for _ in range(5):
        replay()
    states = (learner.model.state_dict().values() for learner in (eager, replayed))
    return {EQUAL: Value(float(all(map(torch.equal, *states))), 8)}


def _profiled(setting: Setting, options: Options) -> Mapping[str, Value]:
    """Counts the kernels of a step, and sums their time."""
    if options.device != "cuda":
        return {}
    step, steps = _step(setting, "SA by kernels", options), 5
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kernels = [event for event in profile.events() if "CUDA" in str(event.device_type)]
    microseconds = sum(event.self_device_time_total for event in kernels)
    return {GPU_MS: Value(microseconds / steps / 1000, steps), KERNELS: Value(len(kernels) / steps, steps)}


def _compiled(setting: Setting, mode: str, options: Options) -> Mapping[str, Value]:
    started = time.perf_counter()
    step = _step(setting, "SA by kernels", options, compile_mode=mode)
    for _ in range(3):
        step()
    if options.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"training step, ms": alone(lambda: step, options, 2.0), "compiling, s": Value(seconds, 1)}


def _step(setting: Setting, name: str, options: Options, compile_mode: str = "none") -> Act:
    """Builds a network, and returns its training step on a fixed batch."""
    return partial(_learner(setting, name, options, compile_mode).step, *_batch(setting, options))


def _learner(setting: Setting, name: str, options: Options, compile_mode: str = "none") -> Learner:
    attention, fused = setting.attentions[name]
    on_cuda = options.device == "cuda"
    recipe = TrainConfig(
        batch_size=setting.batch,
        learning_rate=1e-6,  # so small that the loss does not overflow
        precision="bf16" if on_cuda else "fp32",
        memory_format="channels_last" if on_cuda else "contiguous",
        fused=fused,
        compile=compile_mode,
    )
    network = {"model": {"name": setting.model}, "attention": attention}
    learner = Learner(network, recipe, CLASSES, 0, options.torch_device)
    learner.model.train()
    return learner


def _batch(setting: Setting, options: Options) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(setting.batch, 3, setting.side, setting.side, generator=generator)
    labels = torch.randint(CLASSES, (setting.batch,), generator=generator)
    return pixels.to(options.torch_device), labels.to(options.torch_device)
