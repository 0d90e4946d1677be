"""Networks with random weights, kept as training would keep them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.config.compose import compose_config
from ablations.data import load_images
from ablations.design import make_design
from ablations.storage.files import Weights
from ablations.training.job import pack_weights
from ablations.training.learner import build_network
from tests.builders.cells import stored

IMAGES = ("device=cpu", "data.train_images=20", "data.test_images=160")  # more than a batch of 128
GROUPS = ("sweep=groups", "sweep.factors.attention.groups=[2,4]")


def random_network(network: dict[str, object], classes: int = 10, seed: int = 0) -> nn.Module:
    """Builds a network whose norms and gates are not where they start, so that they differ by image."""
    model = build_network(network, classes, seed=seed, fused="off")
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2 or parameter.shape[0] == 1:
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=random))
        for path, buffer in model.named_buffers():
            if path.endswith("running_mean"):
                buffer.add_(0.2 * torch.randn(buffer.shape, generator=random))
    return model.eval()


def study(folder: Path, *overrides: str, finished: int | None = None) -> StudyAnalysis:
    """A study as it would be stored, of which the first cells are finished."""
    config = compose_config([*IMAGES, "train.batch_size=8", "replicates=1", *overrides])
    design = make_design(config)
    images = load_images(config.data)
    attributes = {"data_fingerprint": images.fingerprint, "data": {"classes": list(images.classes)}}
    cells = len(list(design.cells())) if finished is None else finished
    return StudyAnalysis(config, design, collect(design, stored(design, cells)), attributes, folder)


def keep_weights(found: StudyAnalysis, *without: str) -> None:
    """Keeps weights of all variants but some, as training would."""
    for variant in found.design.variants:
        if variant.name not in without:
            cell = found.design.cell(variant, 0)
            classes = tuple(found.attributes["data"]["classes"])
            content = pack_weights(cell, random_network(variant.network), classes)
            Weights(found.folder / "weights").write(cell, content)


def trained(folder: Path, *overrides: str) -> TrainedNetworks:
    """The networks of a study, with random weights."""
    found = study(folder, *overrides)
    keep_weights(found)
    return found.networks
