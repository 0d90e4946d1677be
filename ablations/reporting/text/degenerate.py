"""Degenerate modules as text: locations, reasons, and options that avoid them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablations.common.wording import count
from ablations.design.network import knobs_of
from sa_core.attentions.findings import (
    CONSTANT_GATE,
    INPUT_INDEPENDENT,
    NO_GRADIENT,
    SINGLE_HIDDEN_UNIT,
    SINGLE_VALUE_NORM,
)
from sa_core.attentions.knobs import ReducedKnobs, ShuffleAttentionKnobs

if TYPE_CHECKING:  # it imports torch
    from ablations.measure.degenerate import DegenerateModule

_ORDER = (SINGLE_HIDDEN_UNIT, SINGLE_VALUE_NORM, INPUT_INDEPENDENT, CONSTANT_GATE, NO_GRADIENT)
_LISTED = 12  # modules described in a message
_NAMED = 3  # insertion points or parameters named in a clause
_FEWEST_UNITS = 4  # recommended minimum of hidden units


def degenerate_clauses(modules: Sequence[DegenerateModule]) -> list[str]:
    """Describes degenerate modules in a clause each; if there are many, the first ones and the number of others."""
    clauses = [_clause(module) for module in modules[:_LISTED]]
    left_out = len(modules) - len(clauses)
    return [*clauses, f"and {count(left_out, 'other module')}"] if left_out else clauses


def _clause(module: DegenerateModule) -> str:
    attention, (channels, height, width) = module.network["attention"]["name"], module.shape
    name = attention if module.variant == attention else f"{module.variant}: {attention}"
    stages = ", ".join(str(stage) for stage in dict.fromkeys(place.stage for place in module.places))
    where = f"stage {stages}, {count(channels, 'channel')}, {height}x{width} maps"
    paths = _listed([place.path for place in module.places])
    reasons = "; ".join([*_reasons(module), *_advice(module)])
    return f"{name} at {paths} of {module.network['model']['name']} ({where}): {reasons}"


def _reasons(module: DegenerateModule) -> list[str]:
    found = {kind: [finding for finding in module.findings if finding.kind == kind] for kind in _ORDER}
    subjects = {kind: [finding.subject for finding in found[kind] if finding.subject] for kind in _ORDER}
    reasons = [f"the hidden layer {name} has one unit" for name in subjects[SINGLE_HIDDEN_UNIT]]
    reasons += [f"the norm {name} normalizes a single value" for name in subjects[SINGLE_VALUE_NORM]]
    if found[INPUT_INDEPENDENT]:
        reasons.append("its output does not depend on the image")
    reasons += [
        f"in {finding.channels} of {module.shape[0]} channels its output does not depend on the image"
        for finding in found[CONSTANT_GATE]
    ]
    if names := subjects[NO_GRADIENT]:
        reasons.append(f"no gradient reaches {_listed(names)}")
    elif found[NO_GRADIENT]:
        reasons.append("no parameter has a gradient at the initial values, as the gates are saturated")
    return reasons


def _advice(module: DegenerateModule) -> list[str]:
    """Returns clauses on options that avoid it, if known."""
    knobs, (channels, height, width) = knobs_of(module.network), module.shape
    if isinstance(knobs, ReducedKnobs) and knobs.hidden_units_on(channels) == 1:
        most = max(1, channels // _FEWEST_UNITS)
        return [f"attention.reduction=auto or at most {most} avoids this"]
    if height * width == 1:
        stem = " model.stem=cifar," if module.network["model"].get("stem") == "imagenet" else ""
        return [f"larger images,{stem} or attention.stages without this stage avoid this"]
    if isinstance(knobs, ShuffleAttentionKnobs) and any(finding.kind == NO_GRADIENT for finding in module.findings):
        return ["an attention.gate_bias closer to 0 avoids this"]
    return []


def _listed(names: Sequence[str]) -> str:
    left_out = len(names) - _NAMED
    return ", ".join(names) if left_out <= 0 else f"{', '.join(names[:_NAMED])} and {left_out} more"
