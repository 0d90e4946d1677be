"""The file of a trained network: safetensors, with the metadata to build and use the network.

The tensors are the state dict. The metadata, which safetensors stores as text, are `network` (JSON: arguments of
`build_network`), `variant`, `replicate`, `classes` (JSON: names in the order of the logits), and `inputs` (JSON:
`ImageFormat`). Reading such a file does not execute code from it (https://huggingface.co/docs/safetensors).
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
    """The content of a trained network's file.

    Attributes:
        network: `{"model": {...}, "attention": {...}}`, as for `build_network`.
        variant, replicate: the cell that was trained.
        classes: names of the classes in the order of the logits.
        inputs: the format of the input images.
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
            "format": "pt",  # expected by other libraries
            "network": json.dumps(self.network),
            "variant": self.variant,
            "replicate": str(self.replicate),
            "classes": json.dumps(self.classes),
            "inputs": json.dumps(asdict(self.inputs)),
        }
        # Copies each tensor, as safetensors rejects tensors that share memory.
        state = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in self.state.items()}
        return save(state, metadata=about)

    @classmethod
    def read(cls, path: Path) -> KeptNetwork:
        """Reads a file.

        Raises:
            OSError: if the file cannot be opened.
            ValueError: if the file is invalid.
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
        except Exception as error:  # safetensors raises many types of errors for damaged files
            raise ValueError(first_line(error)) from error

    def build(self) -> nn.Module:
        """Builds the network in evaluation mode on the CPU; shuffle attention uses torch's operations.

        Raises:
            ValueError: if the weights do not fit the network.
        """
        try:
            model = build_network(self.network, len(self.classes), seed=0, fused="off")
            model.load_state_dict(self.state)
        except Exception as error:  # a damaged file may name any network
            raise ValueError(first_line(error)) from error
        return model.eval()
