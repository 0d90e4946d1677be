"""The protocol: everything that must be equal for two cells to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ablations.common import resolve
from ablations.common.errors import UsageError
from ablations.common.settings import Settings, flatten
from ablations.config import Config, decisive


def make_protocol(config: Config, stored: Mapping[str, Any] | None) -> Settings:
    """Returns the protocol that a configuration asks for, `auto` resolved; takes and raises what `make_design` does."""
    if config.data.cutout >= config.data.side:
        raise UsageError("data.cutout", config.data.cutout, f"must be less than the image's {config.data.side} pixels")
    images = getattr(config.data, "train_images", None)  # of real images it is known when they have been found
    if images is not None and config.train.batch_size > images:
        reason = f"is more than the {images:,} training images"
        raise UsageError("train.batch_size", config.train.batch_size, reason)
    train = asdict(config.train)
    if stored is None:
        device = resolve.resolve_device(config.device)
        train["precision"] = resolve.resolve_precision(config.train.precision, device)
        train["memory_format"] = resolve.resolve_memory_format(config.train.memory_format, device)
        train["fused"] = resolve.resolve_fused(config.train.fused, device)
    else:
        device = stored["device"] if config.device == "auto" else config.device
        for name in ("precision", "memory_format", "fused"):
            train[name] = stored["train"].get(name) if train[name] == "auto" else train[name]
    return {"data": decisive(config.data), "train": train, "seed": config.seed, "device": device}


def protocol_differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Lists what differs between two protocols, one option a line: `train.epochs: 6 is stored, 3 is asked for`."""
    one, other = flatten(stored), flatten(asked)
    return [
        f"{name}: {one.get(name, 'nothing')} is stored, {other.get(name, 'nothing')} is asked for"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
