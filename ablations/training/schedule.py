"""Learning rate schedules; the learning rates of all steps are computed before training starts."""

from __future__ import annotations

import math

from ablations.config import TrainConfig


def learning_rates(recipe: TrainConfig, steps: int) -> list[float]:
    """Returns the learning rate of each of `steps` steps."""
    shares = (learning_rate_share(recipe.schedule, recipe.warmup, step, steps) for step in range(steps))
    return [recipe.learning_rate * share for share in shares]


def learning_rate_share(schedule: str, warmup: float, step: int, steps: int) -> float:
    """Returns the learning rate of a step as a fraction of the peak learning rate.

    `cosine` falls from 1 to 0 over the steps (Loshchilov and Hutter 2017). The other schedules first rise to 1 over
    the `warmup` share of the steps, and then fall like `cosine`. `warmup_cosine` rises linearly (Goyal et al. 2017),
    from 1/(n + 1) for a warm-up of n steps; `onecycle` rises from 1/25 along a cosine (Smith and Topin 2018, as in
    torch's OneCycleLR, which is not used because it divides by zero for a warm-up of one step).
    """
    rise = 0 if schedule == "cosine" else min(round(warmup * steps), steps - 1)
    if step < rise:
        return (step + 1) / (rise + 1) if schedule == "warmup_cosine" else 1 - (1 - 1 / 25) * _cosine_fall(step / rise)
    return _cosine_fall((step - rise) / (steps - rise))


def _cosine_fall(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2
