"""What networks cost, as plain numbers that can be stored and sent anywhere; made by `ablations.training.cost`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLAIN = "plain network"  # the backbone without attention, which the others are timed against
MODES = ("train", "test")  # a training step, inference
CAPTURED = "captured_"  # before a mode: replayed as a CUDA graph


@dataclass(frozen=True)
class Speed:
    """How long a batch takes, in milliseconds, and the log of each copy's time over the plain network's."""

    ms: float
    log_ratios: tuple[float, ...]


@dataclass(frozen=True)
class NetworkCost:
    """What a network takes, or why that is not known (`failed`).

    The memory is the most that a training step has allocated at a time, weights and optimizer included. Speeds are of
    training steps and of inference, for batches of the same size; None where they were not measured. `train` and `test`
    are of calls launched from Python, `captured_train` and `captured_test` of their replays as CUDA graphs.
    """

    parameters: int = 0
    peak_memory_mib: float | None = None
    train: Speed | None = None
    test: Speed | None = None
    failed: str = ""
    captured_train: Speed | None = None
    captured_test: Speed | None = None


def as_stored(costs: Mapping[str, NetworkCost]) -> dict[str, Any]:
    """Returns plain values, as JSON keeps them."""
    return {name: {key: _plain(value) for key, value in vars(cost).items()} for name, cost in costs.items()}


def from_stored(stored: Mapping[str, Any]) -> dict[str, NetworkCost]:
    """Reads what `as_stored` returns."""

    def speed(known: Mapping[str, Any] | None) -> Speed | None:
        return None if known is None else Speed(known["ms"], tuple(known["log_ratios"]))

    # Studies of before there were captured times have none.
    keys = [f"{prefix}{mode}" for prefix in ("", CAPTURED) for mode in MODES]
    return {
        name: NetworkCost(**{**known, **{key: speed(known.get(key)) for key in keys}}) for name, known in stored.items()
    }


def _plain(value: Any) -> Any:
    return {"ms": value.ms, "log_ratios": list(value.log_ratios)} if isinstance(value, Speed) else value
