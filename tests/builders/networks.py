"""Networks with random weights, as the suite describes and watches them."""

from __future__ import annotations

from torch import nn

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.variants import Variant


def variant_of(model: str = "resnet8", attention: str = "sa", **knobs: object) -> Variant:
    """A variant as a study has it, with all its knobs."""
    settings = {"attention": attention, "model": model} | {f"attention.{name}": value for name, value in knobs.items()}
    shown = ", ".join(f"{name}: {value}" for name, value in settings.items())
    overrides = ["sweep.factors.attention.groups=[1]", f"sweep.variants={{it: {{{shown}}}}}", "sweep.baseline=it"]
    config = compose_config(["device=cpu", "sweep=groups", *overrides])
    return next(variant for variant in make_design(config).variants if variant.name == "it")


def hooks_of(model: nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())
