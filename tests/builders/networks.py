"""Networks with random weights, their variants, and the number of their hooks."""

from __future__ import annotations

import torch
from torch import nn

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.variants import Variant
from ablations.training.learner import build_network


def variant_of(model: str = "resnet8", attention: str = "sa", **knobs: object) -> Variant:
    """A variant of a study with these knobs."""
    settings = {"attention": attention, "model": model} | {f"attention.{name}": value for name, value in knobs.items()}
    options = ", ".join(f"{name}: {value}" for name, value in settings.items())
    overrides = ["sweep.factors.attention.groups=[1]", f"sweep.variants={{it: {{{options}}}}}", "sweep.baseline=it"]
    config = compose_config(["device=cpu", "sweep=groups", *overrides])
    return next(variant for variant in make_design(config).variants if variant.name == "it")


def random_network(network: dict[str, object], classes: int = 10, seed: int = 0) -> nn.Module:
    """Builds a network whose norms and gates differ from initialisation, so that gates depend on the image."""
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


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
