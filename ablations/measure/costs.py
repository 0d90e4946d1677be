"""The cost of networks, as plain numbers that can be stored; measured by `ablations.training.cost`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLAIN = "plain network"  # the backbone without attention, the baseline of all ratios
MODES = ("train", "test")  # a training step, inference
CAPTURED = "captured_"  # prefix of a mode: replayed as a CUDA graph


@dataclass(frozen=True)
class Speed:
    """Milliseconds per batch, and for each copy the log of its time relative to the plain network."""

    ms: float
    log_ratios: tuple[float, ...]


@dataclass(frozen=True)
class NetworkCost:
    """The cost of a network, or the reason why it could not be measured (`failed`).

    The memory is the peak of a training step, including weights and optimizer. Speeds are of training steps and of
    inference, for batches of the same size; None if not measured. `train` and `test` are of calls launched from Python,
    `captured_train` and `captured_test` of their replays as CUDA graphs.
    """

    parameters: int = 0
    peak_memory_mib: float | None = None
    train: Speed | None = None
    test: Speed | None = None
    failed: str = ""
    captured_train: Speed | None = None
    captured_test: Speed | None = None


def as_stored(costs: Mapping[str, NetworkCost]) -> dict[str, Any]:
    """Returns plain values that JSON can store."""
    return {name: {key: _plain(value) for key, value in vars(cost).items()} for name, cost in costs.items()}


def from_stored(stored: Mapping[str, Any]) -> dict[str, NetworkCost]:
    """Reads the values that `as_stored` returns."""

    def speed(values: Mapping[str, Any] | None) -> Speed | None:
        return None if values is None else Speed(values["ms"], tuple(values["log_ratios"]))

    # Studies of earlier versions have no captured times.
    keys = [f"{prefix}{mode}" for prefix in ("", CAPTURED) for mode in MODES]
    return {
        name: NetworkCost(**{**cost, **{key: speed(cost.get(key)) for key in keys}}) for name, cost in stored.items()
    }


def _plain(value: Any) -> Any:
    return {"ms": value.ms, "log_ratios": list(value.log_ratios)} if isinstance(value, Speed) else value
