"""Claims, networks and studies for tests of the ledger, in memory and in a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.variants import make_variant
from ablations.ledger.declared import CLAIMS, Claim
from ablations.ledger.stored import Network, Study
from ablations.storage.study import open_store

REAL = "data=cifar10"  # a data set other than the digits
IMAGENET = ("data=imagenet_subset", "data.root=x", "data.resolution=224", "train=imagenet", "model=resnet50")
WHOLE: dict[str, Any] = {"train": 1_281_167, "test": 50_000, "classes": [f"n{number}" for number in range(1000)]}
NOISE = [0.03, -0.02, 0.01, -0.03, 0.02, -0.01, 0.0, 0.01]  # differences between replicates

Top1 = Callable[[str, int], float | None]


def claim(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.id == name)


@cache
def config_of(*overrides: str) -> Config:
    return compose_config(["device=cpu", *overrides])


@cache
def protocol_of(*overrides: str) -> dict[str, Any]:
    return make_design(config_of(*overrides)).protocol


def network(model: str = "resnet8", **knobs: Any) -> dict[str, Any]:
    """A network in the form of a store, for example `network(attention="sge")`."""
    path = {name: name if name == "attention" else f"attention.{name}" for name in knobs}
    variant = make_variant(
        config_of(f"model={model}"), "v", {path[name]: value for name, value in knobs.items()}, {}, "v"
    )
    return dict(json.loads(json.dumps(variant.network)))


def store_study(folder: Path, top1: Top1, *overrides: str, known: Mapping[str, Any] | None = None) -> str:
    """Stores a study with the top-1 that `top1` returns for variant and replicate; returns its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'optuna.db'}"
    design = make_design(compose_config(["device=cpu", *overrides]))
    store = open_store(url, design.study, create=True)
    store.initialise(design)
    if known:
        store.remember("data", known)
    for cell in design.cells():
        value = top1(cell.variant.name, cell.replicate)
        if value is not None:
            store.start(cell)
            store.finish(cell, {"result": {"top1": value, "epochs": []}, "environment": {"cpu": "one"}})
    return url


def by_name(differences: Mapping[str, float]) -> Top1:
    """Top-1 of 70 % plus the difference of a variant plus noise."""
    return lambda name, replicate: 70 + differences.get(name, 0.0) + NOISE[(replicate + len(name)) % len(NOISE)]


def study(
    networks: Sequence[tuple[Mapping[str, Any], Mapping[int, float]]],
    *overrides: str,
    known: Mapping[str, Any] | None = None,
    interims: Sequence[int] | None = None,
    name: str = "mine",
    store: str = "sqlite:///x",
) -> Study:
    """A study of networks with the top-1 of their replicates, by default on real images."""
    attributes = {"data": known, "looks": interims}
    stored_networks = tuple(Network(settings, f"v{number}", top1) for number, (settings, top1) in enumerate(networks))
    return Study(name, store, protocol_of(*(overrides or (REAL,))), attributes, stored_networks)


def around(mean: float, n: int = 8, spread: float = 1.0) -> dict[int, float]:
    return {replicate: mean + spread * NOISE[replicate] for replicate in range(n)}


def imagenet(
    sa: Mapping[int, float],
    *overrides: str,
    known: Mapping[str, Any] = WHOLE,
    groups: int = 64,
    plain: Mapping[int, float] | None = None,
) -> Study:
    """A study of shuffle attention and the plain network, by default on all of ImageNet."""
    model = next((text.partition("=")[2] for text in overrides if text.startswith("model=")), "resnet50")
    config = config_of(*IMAGENET, *overrides)
    networks = []
    for levels, top1 in (({"attention.groups": groups}, sa), ({"attention": "none"}, plain or around(76.0, 8, 2.0))):
        variant = make_variant(config, "v", {"model": model, **levels}, {}, "v")
        networks.append((variant.network, top1))
    return study(networks, *IMAGENET, *overrides, known=known)
