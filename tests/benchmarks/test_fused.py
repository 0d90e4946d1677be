"""Cost of the fused operator, as ratios within one run: modules relative to a copy of their map and to the official
formulation, networks with shuffle attention relative to plain ones; for every instruction set of this machine.

    pytest -s tests/benchmarks/test_fused.py                     # everything: half an hour
    SECONDS=2 pytest -s tests/benchmarks/test_fused.py -k "modules and avx2"
    DEVICE=cuda pytest -s tests/benchmarks/test_fused.py

Gates are random, because initial gates are constant. Each instruction set is measured in a separate process with one
thread per core. A test fails if a ratio in float32 exceeds the limit of its row (`must`) in one of three repetitions;
it needs an idle machine. Nothing is asserted about GPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.benchmarking.workloads import BACKWARD, FORWARD, Copy, module_inputs, module_workload
from ablations.common.process import keep_freed_memory
from ablations.config import TrainConfig
from ablations.measure.record import Setting
from ablations.measure.speed import Act, Make, clock_of, compare
from ablations.training.learner import forward
from sa_core import ShuffleAttention, create_model
from sa_core.fused import cpu
from tests.processors import PROCESSORS
from tests.sa_core.official import OfficialShuffleAttention

DEVICE = torch.device(os.environ.get("DEVICE", "cpu"))
SECONDS = float(os.environ.get("SECONDS", "8"))  # per comparison
TIMES = 3
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Row(NamedTuple):
    """Ratios to a baseline, one median per repetition, and their limit, if there is one."""

    what: str
    subject: str
    baseline: str
    ratios: list[float]
    must: float | None

    def __str__(self) -> str:
        found = ", ".join(f"{ratio:.3f}" for ratio in self.ratios)
        limit = "" if self.must is None else f" (must: {self.must:.2f}{'' if self.holds() else '; MISSED'})"
        return f"{self.what}: {self.subject} / {self.baseline}: {found}{limit}"

    def holds(self) -> bool:
        return self.must is None or max(self.ratios) <= self.must


def rows(what: str, makes: Mapping[str, Make], baseline: str, musts: Mapping[str, float]) -> Iterator[Row]:
    """Yields the ratios of subjects to a baseline, in several repetitions."""
    runs = [compare(makes, baseline, clock_of(DEVICE), seconds=SECONDS, seed=seed) for seed in range(TIMES)]
    for name in makes:
        if name != baseline:
            yield Row(what, name, baseline, [run.ratio(name)[0] for run in runs], musts.get(name))


def random_gates(module: nn.Module) -> nn.Module:
    """Draws the parameters of all shuffle attention within a module at random."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (ShuffleAttention, OfficialShuffleAttention)):
                for parameter in part.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


class Shape(NamedTuple):
    groups: int
    forward: float  # limit, relative to a copy


SHAPES = {
    (32, 256, 56, 56): Shape(64, 1.3),
    (32, 512, 28, 28): Shape(64, 1.3),
    (32, 1024, 14, 14): Shape(64, 1.9),
    (128, 64, 32, 32): Shape(8, 1.5),
    (128, 32, 16, 16): Shape(8, 2.2),
}
BACKWARD_MUST = 0.25  # relative to the official formulation


MODULES: dict[str, Callable[[int, int], nn.Module]] = {
    "copy": lambda *_: Copy(),
    "sa": lambda channels, groups: random_gates(ShuffleAttention(channels, groups)),
    "official": lambda channels, groups: random_gates(OfficialShuffleAttention(channels, groups)),
}


def module_act(name: str, groups: int, setting: Setting, inputs: tuple[Tensor, Tensor]) -> Act:
    return module_workload(lambda channels: MODULES[name](channels, groups), *inputs, setting).acts[setting.mode]


def of_modules(precision: str, layout: str) -> Iterator[Row]:
    for size, shape in SHAPES.items():
        for mode in (FORWARD, BACKWARD):
            setting = Setting(mode, "eager", precision, layout)
            inputs = module_inputs(list(size), setting, DEVICE)
            makes = {name: partial(module_act, name, shape.groups, setting, inputs) for name in MODULES}
            title = f"{'x'.join(map(str, size))} {mode}"
            copies = {"sa": shape.forward} if mode == FORWARD and layout == "contiguous" else {}
            yield from rows(title, makes, "copy", copies)
            makes.pop("copy")
            yield from rows(title, makes, "official", {"sa": BACKWARD_MUST} if mode == BACKWARD else {})


NETWORKS: dict[str, dict[str, object]] = {
    "plain": {},
    "plain, fused blocks": {"fused_block": True},
    "sa by torch": {"attention": "sa", "fused": "off"},
    "sa": {"attention": "sa"},
    "sa, fused blocks": {"attention": "sa", "fused_block": True},
}


INFERENCE_MUSTS = {
    "contiguous": {"sa": 1.05, "sa, fused blocks": 1.00},
    "channels_last": {"sa": 1.08, "sa, fused blocks": 1.05},
}
TRAINING_MUSTS = {
    "contiguous": {"sa": 1.08, "sa, fused blocks": 1.03},
    "channels_last": {"sa": 1.10, "sa, fused blocks": 1.05},
}


def of_inference(precision: str, layout: str) -> Iterator[Row]:
    recipe = TrainConfig(precision=precision, memory_format=layout)
    images = torch.randn(4, 3, 224, 224, device=DEVICE)

    def act(options: dict[str, object]) -> Act:
        model = random_gates(create_model("resnet50", num_classes=1000, seed=0, **options))  # type: ignore[arg-type]
        model = model.eval().to(DEVICE).to(memory_format=FORMATS[layout])

        def run() -> None:
            with torch.inference_mode():
                forward(model, recipe, images)

        return run

    makes = {name: partial(act, options) for name, options in NETWORKS.items()}
    yield from rows("ResNet-50 inference, 4 images", makes, "plain", INFERENCE_MUSTS[layout])


def of_training(precision: str, layout: str) -> Iterator[Row]:
    recipe = TrainConfig(precision=precision, memory_format=layout)
    images, labels = torch.randn(128, 3, 32, 32, device=DEVICE), torch.randint(10, (128,), device=DEVICE)

    def act(options: dict[str, object]) -> Act:
        knobs = {"groups": 8} if "attention" in options else {}
        model = random_gates(create_model("resnet20", seed=0, **options, **knobs)).train()  # type: ignore[arg-type]
        model = model.to(DEVICE).to(memory_format=FORMATS[layout])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, nesterov=True, fused=True)

        def step() -> None:
            F.cross_entropy(forward(model, recipe, images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    makes = {name: partial(act, options) for name, options in NETWORKS.items()}
    yield from rows("ResNet-20 training step, 128 images", makes, "plain", TRAINING_MUSTS[layout])


TABLES = {"modules": of_modules, "inference": of_inference, "training": of_training}


def instruction_sets() -> dict[str, dict[str, str]]:
    """The instruction sets of this machine, with the environment variables that select them."""
    if DEVICE.type != "cpu":
        return {DEVICE.type: {}}
    best = torch.backends.cpu.get_cpu_capability().lower()
    return {best: {}, **(PROCESSORS if best == "avx512" else {})}


@pytest.mark.parametrize("layout", list(FORMATS))
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("table", list(TABLES))
@pytest.mark.parametrize("instructions", list(instruction_sets()))
def test_table(instructions: str, table: str, precision: str, layout: str, tmp_path: Path) -> None:
    if precision == "bf16" and instructions == "avx2":
        pytest.skip("a machine with AVX2 alone trains in float32")
    path = tmp_path / "rows.json"
    command = [sys.executable, "-m", "tests.benchmarks.test_fused", table, precision, layout, str(path)]
    variables = {**instruction_sets()[instructions], "DEVICE": str(DEVICE)}
    subprocess.run(command, env=os.environ | variables, cwd=Path(__file__).parents[2], check=True)
    found = [Row(*row) for row in json.loads(path.read_text())]
    missed = [str(row) for row in found if not row.holds()]
    assert DEVICE.type != "cpu" or precision != "fp32" or not missed, "\n".join(missed)


def main(table: str, precision: str, layout: str, path: str) -> None:
    """Measures a table, prints it, and writes its rows to a file."""
    if DEVICE.type == "cpu":
        keep_freed_memory()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    library = cpu.load()
    by = "torch" if library is None else Path(library._name).name.split(".")[0].removeprefix("_")
    print(f"\n{by if DEVICE.type == 'cpu' else DEVICE}, {torch.get_num_threads()} threads, {precision} {layout}")
    found = []
    for row in TABLES[table](precision, layout):
        print(f"  {row}", flush=True)
        found.append(row)
    Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
