"""Ways in which an attention module can be degenerate. Without torch, so that knobs can declare intended ones."""

from __future__ import annotations

from dataclasses import dataclass, field

INPUT_INDEPENDENT = "input_independent"
CONSTANT_GATE = "constant_gate"
SINGLE_VALUE_NORM = "single_value_norm"
SINGLE_HIDDEN_UNIT = "single_hidden_unit"
NO_GRADIENT = "no_gradient"


@dataclass(frozen=True)
class Finding:
    """A way in which a module is degenerate.

    Attributes:
        kind: one of

            - `input_independent`: each output channel is a fixed multiple of one input channel plus a constant, for all
              images: the module acts as identity, constant, shift or permutation.
            - `constant_gate`: the same, for some of the output channels.
            - `single_value_norm`: a layer, group or instance norm over one value, whose output is its bias.
            - `single_hidden_unit`: a linear or convolution layer that computes one number per image and precedes
              another layer: a hidden layer of one unit. The spatial gate of CBAM and the context mask of GC, which have
              one channel and one number per position, do not count.
            - `no_gradient`: a parameter that requires a gradient and has none, or a gradient of 0, for all images;
              without a subject, all parameters at their initial values, so that training never changes them.
        subject: path of the layer or parameter in the module; empty for the module as a whole.
        channels: for a constant gate, the number of output channels affected.
    """

    kind: str
    subject: str = ""
    channels: int = field(default=0, compare=False)
