"""The file of a trained network: safetensors, with what is needed to build the network and to use it.

The tensors are the state dict. The metadata, which safetensors keeps as text, are `network` (JSON: settings that
`build_network` takes), `variant`, `replicate`, `classes` (JSON: names in the order of the logits), and `inputs` (JSON:
`ImageFormat`). Reading such a file runs no code of it (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ablations.common.settings import Settings
from ablations.common.wording import first_line
from ablations.data.device import ImageFormat
from ablations.training.learner import build_network


@dataclass(frozen=True)
class KeptNetwork:
    """A trained network as its file has it.

    Attributes:
        network: `{"model": {...}, "attention": {...}}`, as `build_network` takes it.
        variant, replicate: which cell was trained.
        classes: names of the classes in the order of the logits.
        inputs: which images the network takes.
        state: the state dict, on the CPU.
    """

    network: Settings
    variant: str
    replicate: int
    classes: tuple[str, ...]
    inputs: ImageFormat
    state: dict[str, Tensor]

    def to_bytes(self) -> bytes:
        """Returns the content of the file."""
        about = {
            "format": "pt",  # which libraries look for
            "network": json.dumps(self.network),
            "variant": self.variant,
            "replicate": str(self.replicate),
            "classes": json.dumps(self.classes),
            "inputs": json.dumps(asdict(self.inputs)),
        }
        # A copy of each tensor: safetensors refuses those that share memory.
        state = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in self.state.items()}
        return save(state, metadata=about)

    @classmethod
    def read(cls, path: Path) -> KeptNetwork:
        """Reads a file.

        Raises:
            OSError: if it is not there.
            ValueError: if it is not one of these.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
            return cls(
                json.loads(about["network"]),
                about["variant"],
                int(about["replicate"]),
                tuple(json.loads(about["classes"])),
                ImageFormat(**json.loads(about["inputs"])),
                state,
            )
        except OSError:
            raise
        except Exception as error:  # what a damaged file makes safetensors raise is of many kinds
            raise ValueError(first_line(error)) from error

    def build(self) -> nn.Module:
        """Builds the network in evaluation mode on the CPU; shuffle attention is computed by torch's operations.

        Raises:
            ValueError: if the weights are of another network.
        """
        try:
            model = build_network(self.network, len(self.classes), seed=0, fused="off")
            model.load_state_dict(self.state)
        except Exception as error:  # of what a damaged file names
            raise ValueError(first_line(error)) from error
        return model.eval()
