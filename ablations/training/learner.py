"""A network with its optimizer: computes training steps and inference as configured by a recipe.

The optimizer is SGD with Nesterov momentum or AdamW. Labels are class indices or, for mixed images, class
distributions; label smoothing applies to both. Weight decay applies to norms, biases and gates only with
`train.decay=all`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablations.config import TrainConfig
from ablations.training.averaging import AveragedNetwork
from sa_core import ShuffleAttention, create_model


class Learner:
    """A network with its optimizer; equal arguments give equal initial weights.

    Args:
        network: `{"model": {"name": ..., "stem": ...}, "attention": {"name": ..., **knobs}}`.
        recipe: the training recipe, with precision and memory format resolved.
        num_classes: number of classes.
        seed: the seed of the initial weights.
        device: the device of the network.
        prepare: modifies the network after it is built, for example replaces modules.
        micro_batches: number of parts of a batch that are processed in sequence, with gradient accumulation, to save
            memory; batch norm computes statistics of each part.

    Attributes:
        model: the network that is trained.
        average: its moving average if the recipe has one, otherwise None.
        rate: the learning rate, a tensor of shape () on the device, so that a CUDA graph reads its current value.
    """

    def __init__(
        self,
        network: dict[str, Any],
        recipe: TrainConfig,
        num_classes: int,
        seed: int,
        device: torch.device,
        prepare: Callable[[nn.Module], object] = lambda _: None,
        micro_batches: int = 1,
    ) -> None:
        be_deterministic()
        self.recipe, self.num_classes, self.device = recipe, num_classes, device
        self.micro_batches = micro_batches
        model = build_network(network, num_classes, seed, fused=recipe.fused)
        prepare(model)
        self.model = model.to(device).to(memory_format=layout(recipe.memory_format))
        self.average = AveragedNetwork(self.model, recipe.ema) if recipe.ema else None
        self.optimizer = make_optimizer(self.model, recipe)
        # torch's fused optimizers read the rate as float32 on a GPU, and convert it to float64 on the CPU.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self.rate = torch.full((), recipe.learning_rate, dtype=dtype, device=device)
        self._bind_rate()
        # Evaluation stays eager, as its last batch has another shape.
        self._trained = self.model if recipe.compile == "none" else compiled(self.model, recipe.compile)

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Loads the state of an optimizer, except its learning rate."""
        self.optimizer.load_state_dict(state)
        self._bind_rate()

    def _bind_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate

    def step(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Runs one training step and returns its loss, on the device.

        The step does not synchronize with the device or depend on CPU values, so it can be captured in a CUDA graph.

        Args:
            pixels: of shape (B, 3, H, W).
            labels: class indices, of shape (B,), or class distributions, of shape (B, classes).
        """
        parts = zip(pixels.chunk(self.micro_batches), labels.chunk(self.micro_batches), strict=True)
        losses = [self._backward(images, classes, len(classes) / len(labels)) for images, classes in parts]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update()
        return sum(losses[1:], losses[0])

    def _backward(self, pixels: Tensor, labels: Tensor, share: float) -> Tensor:
        logits = forward(self._trained, self.recipe, pixels)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        loss = loss if share == 1 else loss * share
        loss.backward()
        return loss.detach()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is tested and stored: the averaged network if there is one, otherwise `model`."""
        return self.model if self.average is None else self.average.model

    @property
    def attention_by(self) -> str:
        """The implementation of shuffle attention: `kernels`, `torch`, or both; empty if there is no such module."""
        dtype = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        modules = [module for module in self.model.modules() if isinstance(module, ShuffleAttention)]
        return " and ".join(sorted({"torch" if module.reason_against(dtype) else "kernels" for module in modules}))

    @property
    def persistent(self) -> list[Tensor]:
        """The tensors that persist between steps: weights, buffers, their average, and the optimizer's state."""
        state = [value for entry in self.optimizer.state.values() for value in entry.values()]
        models = [self.model] if self.average is None else [self.model, self.average.model]
        kept = [*(value for model in models for value in (*model.parameters(), *model.buffers())), *state]
        return [value for value in kept if isinstance(value, Tensor)]


def build_network(network: dict[str, Any], num_classes: int, seed: int, *, fused: str = "auto") -> nn.Module:
    """Builds the network of a variant; `fused` is the recipe's option, whose value `on` is treated as `auto` here."""
    attention = {("attention" if key == "name" else key): value for key, value in network["attention"].items()}
    return create_model(
        **network["model"], **attention, num_classes=num_classes, seed=seed, fused="off" if fused == "off" else "auto"
    )


def forward(model: nn.Module, recipe: TrainConfig, pixels: Tensor) -> Tensor:
    """Returns a network's logits, float32 of shape (B, classes), in the recipe's precision and memory format."""
    pixels = pixels.contiguous(memory_format=layout(recipe.memory_format))
    with autocast(recipe.precision, pixels.device):
        logits: Tensor = model(pixels)
    return logits.float()


def layout(memory_format: str) -> torch.memory_format:
    """Returns torch's object for the name of a memory format."""
    return torch.channels_last if memory_format == "channels_last" else torch.contiguous_format


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns the autocast context for `bf16`; for `fp32` the context has no effect."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def decayed_parameters(model: nn.Module, decay: str) -> list[Tensor]:
    """Returns the parameters with weight decay: `weights` of convolutions and linear layers, or `all`."""
    if decay == "all":
        return [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d))]


def be_deterministic() -> None:
    """Configures torch to use deterministic algorithms, and full precision (no TF32) for fp32."""
    # cuBLAS reads the variable at its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Avoids an unnecessary write to every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


def compiled(module: nn.Module, mode: str = "default") -> nn.Module:
    """Returns a compiled module for inputs of fixed shapes; a module with the same structure reuses compiled code."""
    # All networks share the same Python code, and dynamo's default limit is eight recompilations, then it runs eagerly.
    torch._dynamo.config.recompile_limit = 4096
    torch._dynamo.config.accumulated_recompile_limit = 65536
    return cast(nn.Module, torch.compile(module, mode=mode, dynamic=False))


def make_optimizer(model: nn.Module, recipe: TrainConfig) -> torch.optim.Optimizer:
    """Returns the optimizer of a recipe; for a network on a GPU it can be captured in a CUDA graph."""
    decayed = decayed_parameters(model, recipe.decay)
    chosen = {id(parameter) for parameter in decayed}
    free = [parameter for parameter in model.parameters() if id(parameter) not in chosen and parameter.requires_grad]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if recipe.optimizer == "adamw":
        on_gpu = next(model.parameters()).is_cuda
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.999), fused=True, capturable=on_gpu)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True, fused=True)
