"""The options of each attention module: where it stands, and its knobs, which `sa_core` declares."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from ablations.config.option import AUTO, option
from sa_core.attentions.knobs import ATTENTIONS
from sa_core.backbones.places import POSITIONS

# Knobs that follow the width of the backbone unless a number is given, with what auto means in the help.
_AUTOMATIC = {
    "groups": "auto is in the backbone's proportion what 64 is in ResNet-50.",
    "reduction": "auto scales the papers' 16 to the backbone's width: at least 16 hidden units in the narrowest place, "
    "as in ResNet-50, or as many as it has channels.",
}


@dataclass
class AttentionConfig:
    """The attention module that stands in the blocks; each module adds its own knobs."""

    name: str = MISSING


@dataclass
class PlacedAttentionConfig(AttentionConfig):
    """An attention module that is somewhere."""

    stages: str = option("all", "Stages that carry attention: all, first, last, or their numbers, as 2+3.")
    position: str = option(
        "residual", "Where in a block: after its last norm, before its paths part, after they join, or beside.",
        choices=POSITIONS,
    )  # fmt: skip


def _attention_schema(name: str) -> type[AttentionConfig]:
    """Makes an attention module's knobs, declared in `sa_core`, an option group of the command line."""
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
