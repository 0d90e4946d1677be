"""The cell that `plain_script.py` is compared with, in a process of its own; takes the same arguments."""

from __future__ import annotations

import json
import sys

from torch import nn

from ablations.compose import compose_config
from ablations.design import make_design
from ablations.launcher import SerialLauncher
from ablations.train import Epoch


class Silent:
    def on_step(self, done: int, total: int) -> None:
        pass

    def on_epoch(self, epoch: Epoch) -> None:
        pass

    def on_trained(self, model: nn.Module) -> None:
        pass


def main(root: str, train_per_class: int, val_per_class: int, epochs: int, batch_size: int, seed: int) -> None:
    config = compose_config([
        "data=cifar10", f"data.root={root}", f"data.train_per_class={train_per_class}",
        f"data.val_per_class={val_per_class}", f"train.epochs={epochs}", f"train.batch_size={batch_size}",
        "device=cpu", f"seed={seed}", "sweep.factors={}",
    ])  # fmt: skip
    design = make_design(config)
    launcher = SerialLauncher(design, config.data, measure="off")  # the script measures nothing either
    launcher.prepare()
    result = launcher.train(next(design.cells()), Silent())
    print(json.dumps({"seconds": result.seconds, "top1": result.top1}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))  # type: ignore[arg-type]
