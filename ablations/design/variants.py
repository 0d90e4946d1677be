"""Variants: networks made from settings, and checked at every insertion point of attention.

The checks use the declarations of modules and backbones in `sa_core`, without importing torch; only timm models have to
be built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cache, partial
from typing import cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.common.errors import UsageError, shown
from ablations.common.settings import Settings
from ablations.common.sizes import SMALL_SIDE
from ablations.config import ATTENTION, AUTO, Config, is_switch
from ablations.config.messages import type_reason
from sa_core.attentions.declaration import Knobs, default_of
from sa_core.attentions.knobs import ATTENTIONS, GroupedKnobs, automatic_groups, default_reduction
from sa_core.backbones.insertion_points import Backbone, InsertionPoint, select_stages
from sa_core.backbones.registry import find_backbone
from sa_core.errors import OptionError

NO_ATTENTION = "none"  # the name of a plain network's attention


@dataclass(frozen=True)
class Variant:
    """A network to be trained: a backbone with attention.

    Attributes:
        levels: its levels of the factors (`{"attention.groups": 8}`); empty for a named variant.
        clamped: the reduced number of groups at insertion points that are too narrow, by their number of channels.
        recipe: values tuned for it (`{"train.learning_rate": 0.1}`); empty under the common recipe.
    """

    name: str
    model: Settings
    attention: Settings
    levels: Settings
    clamped: dict[str, int]
    recipe: Settings = field(default_factory=dict)

    @property
    def network(self) -> Settings:
        """The identity of the network."""
        return {"model": self.model, "attention": self.attention}

    @property
    def is_plain(self) -> bool:
        """Whether it is a backbone without attention."""
        return bool(self.attention["name"] == NO_ATTENTION)


def plain_network(model: Settings) -> Settings:
    """Returns the network of a backbone without attention."""
    return {"model": model, "attention": {"name": NO_ATTENTION}}


def variant_of_levels(config: Config, levels: Settings) -> Variant:
    """Makes the variant of a combination of levels; raises as `make_variant`."""
    name = ", ".join(level_name(path, level) for path, level in levels.items())
    option = "; ".join(f"sweep.factors.{path}={shown(level)}" for path, level in levels.items())
    return make_variant(config, name, levels, levels, option)


def level_name(path: str, level: object) -> str:
    """Returns the display name of a level: `groups=8`, `shuffle=on`, or `se` for a module or backbone."""
    text = {True: "on", False: "off"}[level] if isinstance(level, bool) else str(level)
    factor = path.rpartition(".")[2]
    return text if "." not in path or factor == "name" else f"{factor}={text}"


def make_variant(config: Config, name: str, settings: Settings, levels: Settings, option: str) -> Variant:
    """Applies a variant's settings to the base network, and checks the result.

    Args:
        settings: by dotted name, such as `{"attention.groups": 8}`; `attention` and `model` alone select by name.
        levels: the settings that are levels of factors.
        option: origin of the settings, for messages.

    Raises:
        UsageError: if a setting is unknown, has no effect, or is invalid on the backbone.
    """
    _check_settings(config, settings, levels, option)
    paths = {(path if "." in path else f"{path}.name"): value for path, value in settings.items()}
    of_model, of_attention = (
        {path.partition(".")[2]: value for path, value in paths.items() if path.startswith(f"{root}.")}
        for root in ("model", "attention")
    )
    usage_error = partial(_usage_error, paths, option)
    try:
        model, backbone = _model(config, of_model, option)
    except OptionError as error:
        raise usage_error("model", error) from None
    attention = _typed_attention(_inherited(asdict(config.attention), of_attention), of_attention, option)
    clamped = _resolve_and_check(attention, backbone, usage_error)
    return Variant(name, model, attention, levels, clamped)


def _check_settings(config: Config, settings: Settings, levels: Settings, option: str) -> None:
    """Checks that a variant sets options of the network, each to a single value."""
    for path, value in settings.items():
        origin = f"sweep.factors.{path}" if path in levels else option
        if isinstance(value, (list, dict)):
            raise UsageError(option, None, f"{path}={shown(value)}: expects a single value")
        if value is None:
            raise UsageError(option, None, f"{path} needs a value")
        root = path.partition(".")[0]
        if root in ("attention", "model"):
            continue
        if root in {declared.name for declared in fields(config)}:
            reason = "is part of the protocol, which is the same for all cells; only attention.* and model.* can vary"
            raise UsageError(origin, None, f"{shown(path)} {reason}")
        names = ["attention", "model", *(f"attention.{knob}" for knob in asdict(config.attention))]
        raise UsageError(origin, None, f"unknown option {shown(path)}", names, word=path)


def _usage_error(
    settings: Settings, option: str, root: str, error: OptionError, place: str = "", advice: str = ""
) -> UsageError:
    """Returns the error for an invalid option, which names its origin: the variant's settings or the base network."""
    path = f"{root}.{error.option}" if error.option != root else root
    if path in settings or (error.option == root and f"{root}.name" in settings):
        reason = f"{place}{error.option}={shown(error.value)} {error.reason}{advice}"
        return UsageError(option, None, reason, error.choices, word=str(error.value))
    return UsageError(path, error.value, f"{place}{error.reason}{advice}", error.choices)


def _model(config: Config, changes: Settings, option: str) -> tuple[Settings, Backbone]:
    """Returns the settings of the backbone, with `auto` resolved, and the backbone."""
    settings = asdict(config.model) | changes
    if unknown := sorted(set(settings) - {declared.name for declared in fields(config.model)}):
        raise UsageError(option, None, f"unknown option of model: {', '.join(unknown)}", ("name", "stem"))
    backbone = find_backbone(str(settings["name"]))
    stem = settings["stem"]
    if not backbone.stems:
        # A stem set for the base network is ignored by other backbones that have no choice of stems.
        is_set_for_it = "stem" in changes or settings["name"] == config.model.name
        if is_set_for_it and stem != "auto":
            raise OptionError("stem", stem, f"is not available: {backbone.name} has its own stem")
        return {"name": backbone.name}, backbone
    if stem not in ("auto", *backbone.stems):
        raise OptionError("stem", stem, "is not a valid choice", ("auto", *backbone.stems))
    if stem == "auto":
        stem = "cifar" if config.data.side <= SMALL_SIDE else "imagenet"
    return {"name": backbone.name, "stem": stem}, backbone


def _inherited(base: Settings, changes: Settings) -> Settings:
    """Returns the settings that a variant inherits from the base network's attention.

    These are the insertion points, and the knobs that its module shares with the base network's. Knobs that have no
    effect with the variant's changes are not inherited.
    """
    name = str(changes.get("name", base["name"]))
    if name not in ATTENTIONS:
        return {}  # `_typed_attention` raises the error
    kept = {"name"} | ({"stages", "position"} if name != NO_ATTENTION else set())
    kept |= ATTENTIONS[name].shared_with(ATTENTIONS[base["name"]])
    inherited = {key: value for key, value in base.items() if key in kept}
    with suppress(TypeError):  # an unknown knob, for which `_typed_attention` raises the error
        for idle in _knobs(inherited | changes).idle():
            inherited.pop(idle, None)
    return inherited


def check_base(config: Config) -> None:
    """Checks that the base network's knobs do not contradict each other."""
    try:
        _checked_knobs(asdict(config.attention))
    except OptionError as error:
        raise UsageError(f"attention.{error.option}", error.value, error.reason, error.choices) from None


def _checked_knobs(attention: Settings) -> Knobs:
    knobs = _knobs(attention)
    knobs.check_values()
    for name, reason in knobs.without_effect().items():
        raise OptionError(name, getattr(knobs, name), f"has no effect: {reason}")
    return knobs


def _knobs(attention: Settings) -> Knobs:
    """Returns the knobs of a module, with the paper's number in place of an unresolved `auto`."""
    kind = ATTENTIONS[attention["name"]]
    settings = {knob: value for knob, value in attention.items() if knob not in ("name", "stages", "position")}
    return kind(**{knob: default_of(kind, knob) if value == AUTO else value for knob, value in settings.items()})


def _typed_attention(inherited: Settings, changes: Settings, option: str) -> Settings:
    """Returns all settings of attention: defaults, inherited ones, and changes converted to their declared types."""
    name = str(changes.get("name", inherited.get("name")))
    if name not in ATTENTION:
        raise UsageError(option, None, f"unknown attention {shown(name)}", tuple(ATTENTION), word=name)
    schema = _schema(name)
    settings = asdict(ATTENTION[name]()) | inherited
    for knob, value in changes.items():
        if knob not in schema:
            knobs = [str(key) for key in schema if key != "name"]
            reason = f"attention={name} has no option {shown(knob)}" + ("" if knobs else "; it has none")
            raise UsageError(option, None, reason, knobs, word=knob)
        if isinstance(settings[knob], bool) and not is_switch(value):
            raise UsageError(option, None, f"{knob}={shown(value)} must be true or false")
        if isinstance(value, bool) and get_type_hints(ATTENTION[name])[knob] is str:
            value = shown(value)  # as typed
        try:
            schema[knob] = value
        except OmegaConfBaseException as error:
            raise UsageError(option, None, f"{knob}={shown(value)} {type_reason(error)}") from None
        except OverflowError:
            raise UsageError(option, None, f"{knob}={shown(value)} is out of range") from None
        settings[knob] = schema[knob]
    return settings


@cache
def _schema(name: str) -> DictConfig:
    """Returns the schema that converts a module's knobs; cached, because creating it takes milliseconds."""
    return cast(DictConfig, OmegaConf.structured(ATTENTION[name]))


def _resolve_and_check(attention: Settings, backbone: Backbone, error_of: Callable[..., UsageError]) -> dict[str, int]:
    """Resolves `auto` in attention settings, in place, and checks all insertion points; returns `Variant.clamped`."""
    if attention["name"] == NO_ATTENTION:
        return {}
    try:
        points = backbone.selected_points(attention["position"], attention["stages"])
        attention["stages"] = _canonical(attention["stages"], backbone)
        _resolve(attention, backbone, points)
        knobs = _checked_knobs(attention)
    except OptionError as error:
        raise error_of("attention", error) from None
    first: dict[int, InsertionPoint] = {}  # of each width: validity depends on the width only
    for point in points:
        first.setdefault(point.channels, point)
    clamped: dict[int, int] = {}
    for channels, point in first.items():
        try:
            knobs.check_channels(channels)
        except OptionError as error:
            where, advice = f"at {point.path} of {backbone.name}: ", _advice(error, knobs, points)
            raise error_of("attention", error, where, advice) from None
        if isinstance(knobs, GroupedKnobs) and knobs.groups_on(channels) != knobs.groups:
            clamped[channels] = knobs.groups_on(channels)
    return {str(channels): groups for channels, groups in sorted(clamped.items())}


def _resolve(attention: Settings, backbone: Backbone, points: list[InsertionPoint]) -> None:
    """Replaces `auto` and strings of digits by numbers."""
    # Widths at the backbone's default insertion points, so that the numbers do not depend on the variant's.
    widths = list(dict.fromkeys(point.channels for point in backbone.insertion_points()))
    for knob in ("groups", "reduction"):
        value = attention.get(knob)
        if isinstance(value, str) and value.isdecimal():
            attention[knob] = int(value)
        elif isinstance(value, str) and value != AUTO:
            raise OptionError(knob, value, f"must be an integer or '{AUTO}'")
    if attention.get("reduction") == AUTO:
        attention["reduction"] = default_reduction(widths)
    kind = ATTENTIONS[attention["name"]]
    if attention.get("groups") == AUTO and issubclass(kind, GroupedKnobs):
        attention |= automatic_groups(kind, widths, (point.channels for point in points))


def _canonical(stages: str, backbone: Backbone) -> str:
    """Returns the canonical text for stages, so that equal networks have equal settings."""
    count = max(point.stage for point in backbone.insertion_points())
    chosen = select_stages(stages, count, backbone.name)
    return "all" if len(chosen) == count else "+".join(str(stage) for stage in sorted(chosen))


def _advice(error: OptionError, knobs: Knobs, points: list[InsertionPoint]) -> str:
    if error.option != "groups" or not isinstance(knobs, GroupedKnobs):
        return ""
    everywhere = set.intersection(*(set(knobs.fitting_groups(point.channels)) for point in points))
    fitting = f"valid at all insertion points: {', '.join(map(str, sorted(everywhere)))}; " if everywhere else ""
    return f"; {fitting}groups_policy=clamp uses fewer groups where necessary"


def check_distinct(variants: Iterable[Variant]) -> None:
    """Raises a UsageError if two variants have the same name or the same network."""
    by_name: dict[str, Variant] = {}
    by_network: dict[str, Variant] = {}
    for variant in variants:
        network = json.dumps(variant.network, sort_keys=True)
        if variant.name in by_name:
            raise UsageError("sweep", None, f"the variant {variant.name} is listed twice")
        if network in by_network:
            raise UsageError("sweep", None, f"{variant.name} is the same network as {by_network[network].name}")
        by_name[variant.name] = by_network[network] = variant
