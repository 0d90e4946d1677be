"""A plain training script, equivalent to a cell, with PyTorch's standard tools.

    python -m tests.benchmarks.plain_script ROOT TRAIN_PER_CLASS VAL_PER_CLASS EPOCHS BATCH_SIZE SEED

torchvision's data set and transforms, a DataLoader with two workers, fp32, and PyTorch's defaults otherwise.
`tests/benchmarks/test_training.py` compares a cell with it. Prints seconds and top-1 as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from sa_core import create_model

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def first_of_each_class(labels: list[int], count: int) -> list[int]:
    seen = [0] * 10
    chosen = []
    for index, label in enumerate(labels):
        if seen[label] < count:
            chosen.append(index)
            seen[label] += 1
    return chosen


def main(root: str, train_per_class: int, val_per_class: int, epochs: int, batch_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    to_input = [ToTensor(), Normalize(MEAN, STD)]
    augmented = Compose([RandomCrop(32, padding=4, padding_mode="reflect"), RandomHorizontalFlip(), *to_input])
    train_set = datasets.CIFAR10(root, train=True, transform=augmented)
    test_set = datasets.CIFAR10(root, train=False, transform=Compose(to_input))
    started = time.perf_counter()
    train_loader = DataLoader(
        Subset(train_set, first_of_each_class(train_set.targets, train_per_class)),
        batch_size=batch_size, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True,
    )  # fmt: skip
    test_loader = DataLoader(
        Subset(test_set, first_of_each_class(test_set.targets, val_per_class)),
        batch_size=512, num_workers=2, persistent_workers=True,
    )  # fmt: skip
    model = create_model("resnet8", attention="none", num_classes=10, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * len(train_loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=steps, pct_start=0.25, cycle_momentum=False
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    top1 = 0.0
    for _ in range(epochs):
        model.train()
        for pixels, labels in train_loader:
            optimizer.zero_grad()
            criterion(model(pixels), labels).backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        correct = total = 0
        with torch.no_grad():
            for pixels, labels in test_loader:
                correct += (model(pixels).argmax(1) == labels).sum().item()
                total += len(labels)
        top1 = 100 * correct / total
    print(json.dumps({"seconds": time.perf_counter() - started, "top1": top1}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))  # type: ignore[arg-type]
