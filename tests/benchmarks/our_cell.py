"""The cell that is compared with `plain_script.py`, in a separate process with the same arguments."""

from __future__ import annotations

import json
import sys

from torch import get_num_threads

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.execution.launchers.serial import SerialLauncher
from ablations.training.events import Finished
from ablations.training.job import Job


def main(root: str, train_per_class: int, val_per_class: int, epochs: int, batch_size: int, seed: int) -> None:
    config = compose_config([
        "data=cifar10", f"data.root={root}", f"data.train_per_class={train_per_class}",
        f"data.val_per_class={val_per_class}", f"train.epochs={epochs}", f"train.batch_size={batch_size}",
        "device=cpu", f"seed={seed}", "sweep.factors={}",
    ])  # fmt: skip
    design = make_design(config)
    launcher = SerialLauncher(design, config.data, threads=get_num_threads())  # as in the script
    launcher.prepare()
    *_, finished = launcher.work(Job(next(design.cells()), launcher.recipe, threads=launcher.threads))
    assert isinstance(finished, Finished)
    print(json.dumps({name: finished.result[name] for name in ("seconds", "top1")}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))  # type: ignore[arg-type]
