"""The options of each attention module: its insertion point, and its knobs, which `sa_core` declares."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from ablations.config.option import AUTO, option
from sa_core.attentions.knobs import ATTENTIONS
from sa_core.backbones.insertion_points import POSITIONS

# Knobs that are `auto` by default, which scales them to the backbone's width; with the sentence about it in the help.
_AUTOMATIC = {
    "groups": "auto scales the paper's G = 64 to the backbone's width.",
    "reduction": "auto scales the papers' r = 16 to the backbone's width: at least 16 hidden units at the narrowest "
    "insertion point, as in ResNet-50, or as many as it has channels.",
}


@dataclass
class AttentionConfig:
    """The attention module in the blocks; each module adds its knobs."""

    name: str = MISSING


@dataclass
class PlacedAttentionConfig(AttentionConfig):
    """An attention module with an insertion point: any but `none`."""

    stages: str = option("all", "Stages with attention: all, first, last, or stage numbers (from 1) such as 2+3.")
    position: str = option(
        "residual",
        "Insertion point in a residual block: after the last norm of the residual branch (residual), before its first "
        "convolution (pre), after the addition (post), or on the shortcut (shortcut).",
        choices=POSITIONS,
    )


def _attention_schema(name: str) -> type[AttentionConfig]:
    """Turns the knobs of an attention module into a group of options."""
    knobs = ATTENTIONS[name]
    hints = get_type_hints(knobs)
    declared: list[Any] = [("name", str, field(default=name))]
    for knob in fields(knobs):
        hint, default, metadata = hints[knob.name], knob.default, {"words": (), **knob.metadata}
        if knob.name in _AUTOMATIC:
            hint, default, metadata["words"] = int | str, AUTO, (AUTO,)
            metadata["help"] += f" {_AUTOMATIC[knob.name]}"
        declared.append((knob.name, hint, field(default=default, metadata=metadata)))
    base = AttentionConfig if name == "none" else PlacedAttentionConfig
    return make_dataclass(f"{knobs.__name__}Config", declared, bases=(base,))


ATTENTION: dict[str, type[AttentionConfig]] = {name: _attention_schema(name) for name in ATTENTIONS}
