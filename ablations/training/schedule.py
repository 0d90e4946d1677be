"""Learning rate schedules: the learning rate of every step of a training is known before its first one."""

from __future__ import annotations

import math

from ablations.config import TrainConfig


def learning_rates(recipe: TrainConfig, steps: int) -> list[float]:
    """Returns the learning rate of each of so many steps."""
    shares = (learning_rate_share(recipe.schedule, recipe.warmup, step, steps) for step in range(steps))
    return [recipe.learning_rate * share for share in shares]


def learning_rate_share(schedule: str, warmup: float, step: int, steps: int) -> float:
    """Returns the learning rate of a step as a fraction of the peak learning rate.

    `cosine` falls from 1 to 0 over the steps (Loshchilov and Hutter 2017). The other schedules first rise to 1 over
    the `warmup` share of the steps, and then fall likewise. `warmup_cosine` rises linearly (Goyal et al. 2017), from
    1/(n + 1) where it does so for n steps; `onecycle` rises from 1/25 (Smith and Topin 2018, with the cosine arcs of
    torch's OneCycleLR, which divides by zero where the rise is one step long).
    """
    rise = 0 if schedule == "cosine" else min(round(warmup * steps), steps - 1)
    if step < rise:
        return (step + 1) / (rise + 1) if schedule == "warmup_cosine" else 1 - (1 - 1 / 25) * _cosine_fall(step / rise)
    return _cosine_fall((step - rise) / (steps - rise))


def _cosine_fall(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
