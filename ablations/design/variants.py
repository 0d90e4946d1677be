"""A variant: a network to be trained, made from settings and checked at every place where attention is to stand.

Everything is checked with what `sa_core` says of its modules and backbones without importing torch; only the models of
timm have to be built to be known.
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

    `levels` holds the factors that made it (`{"attention.groups": 8}`) and is empty for a variant given by name.
    `clamped` says how many groups there are on places that are too narrow for those asked for, by their channels.
    `recipe` holds what is tuned for it (`{"train.learning_rate": 0.1}`); it is empty under the study's own recipe.
    """

    name: str
    model: Settings
    attention: Settings
    levels: Settings
    clamped: dict[str, int]
    recipe: Settings = field(default_factory=dict)

    @property
    def network(self) -> Settings:
        """What tells this network from any other."""
        return {"model": self.model, "attention": self.attention}

    @property
    def is_plain(self) -> bool:
        """Whether it is a backbone without attention."""
        return bool(self.attention["name"] == NO_ATTENTION)


def plain_network(model: Settings) -> Settings:
    """Returns the network that is a backbone without attention."""
    return {"model": model, "attention": {"name": NO_ATTENTION}}


def variant_of_levels(config: Config, levels: Settings) -> Variant:
    """Makes the variant that a combination of levels is; raises as `make_design` does."""
    name = ", ".join(level_name(path, level) for path, level in levels.items())
    option = "; ".join(f"sweep.factors.{path}={shown(level)}" for path, level in levels.items())
    return make_variant(config, name, levels, levels, option)


def level_name(path: str, level: object) -> str:
    """Returns what people call a level: `groups=8`, `shuffle=on`, or just `se` where it is a whole module."""
    text = {True: "on", False: "off"}[level] if isinstance(level, bool) else str(level)
    factor = path.rpartition(".")[2]
    # A whole module or backbone is its own name; a knob is named with its level.
    return text if "." not in path or factor == "name" else f"{factor}={text}"


def make_variant(config: Config, name: str, settings: Settings, levels: Settings, option: str) -> Variant:
    """Applies a variant's settings to the base network and checks what comes out.

    `settings` are by dotted name, as `{"attention.groups": 8}`; `attention` and `model` alone are their names. `levels`
    are those of them that are levels of factors, and `option` says in messages where the settings come from.

    Raises:
        UsageError: if a setting is unknown, has no effect, or does not fit.
    """
    _check_settings(config, settings, levels, option)
    chosen = {(path if "." in path else f"{path}.name"): value for path, value in settings.items()}
    own = {root: {path.partition(".")[2]: value for path, value in chosen.items() if path.startswith(f"{root}.")}
           for root in ("model", "attention")}  # fmt: skip
    blame = partial(_blamed, chosen, option)
    try:
        model, backbone = _model(config, own["model"], option)
    except OptionError as error:
        raise blame("model", error) from None
    attention = _typed_attention(_inherited(asdict(config.attention), own["attention"]), own["attention"], option)
    clamped = _place(attention, backbone, blame)
    return Variant(name, model, attention, levels, clamped)


def _check_settings(config: Config, settings: Settings, levels: Settings, option: str) -> None:
    """Checks that a variant sets options of the network, each to one value."""
    for path, value in settings.items():
        here = f"sweep.factors.{path}" if path in levels else option  # whatever the other factors are
        if isinstance(value, (list, dict)):
            raise UsageError(option, None, f"{path}={shown(value)}: expects a single value")
        if value is None:
            raise UsageError(option, None, f"{path} needs a value")
        root = path.partition(".")[0]
        if root in ("attention", "model"):
            continue
        if root in {declared.name for declared in fields(config)}:
            reason = "is part of the protocol, which is the same for all cells; only attention.* and model.* can vary"
            raise UsageError(here, None, f"{shown(path)} {reason}")
        known = ["attention", "model", *(f"attention.{knob}" for knob in asdict(config.attention))]
        raise UsageError(here, None, f"unknown option {shown(path)}", known, word=path)


def _blamed(
    chosen: Settings, option: str, root: str, error: OptionError, place: str = "", advice: str = ""
) -> UsageError:
    """Says of an option that does not do where it was set: in the variant, or in the base network."""
    path = f"{root}.{error.option}" if error.option != root else root
    if path in chosen or (error.option == root and f"{root}.name" in chosen):
        reason = f"{place}{error.option}={shown(error.value)} {error.reason}{advice}"
        return UsageError(option, None, reason, error.choices, word=str(error.value))
    return UsageError(path, error.value, f"{place}{error.reason}{advice}", error.choices)


def _model(config: Config, own: Settings, option: str) -> tuple[Settings, Backbone]:
    """Returns the settings of the backbone, with `auto` resolved, and the backbone."""
    settings = asdict(config.model) | own
    if unknown := sorted(set(settings) - {declared.name for declared in fields(config.model)}):
        raise UsageError(option, None, f"unknown option of model: {', '.join(unknown)}", ("name", "stem"))
    backbone = find_backbone(str(settings["name"]))
    stem = settings["stem"]
    if not backbone.stems:
        # A stem that was asked for all backbones says nothing of one that has no choice.
        asked = "stem" in own or settings["name"] == config.model.name
        if asked and stem != "auto":
            raise OptionError("stem", stem, f"is not available: {backbone.name} has its own stem")
        return {"name": backbone.name}, backbone
    if stem not in ("auto", *backbone.stems):
        raise OptionError("stem", stem, "is not a valid choice", ("auto", *backbone.stems))
    if stem == "auto":
        stem = "cifar" if config.data.side <= SMALL_SIDE else "imagenet"
    return {"name": backbone.name, "stem": stem}, backbone


def _inherited(base: Settings, own: Settings) -> Settings:
    """Returns what a variant has from the base network's attention: where it is; the knobs of a module of its kind.

    A knob that the variant's own settings leave without an effect is as if it had not been set.
    """
    name = str(own.get("name", base["name"]))
    if name not in ATTENTIONS:
        return {}  # what is wrong with the name is said later
    kept = {"name"} | ({"stages", "position"} if name != NO_ATTENTION else set())
    kept |= ATTENTIONS[name].shared_with(ATTENTIONS[base["name"]])
    inherited = {key: value for key, value in base.items() if key in kept}
    with suppress(TypeError):  # an unknown knob: said later
        for idle in _knobs(inherited | own).idle():
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
    """Returns the knobs of a module; a number that is still to be found is the paper's."""
    made = ATTENTIONS[attention["name"]]
    settings = {knob: value for knob, value in attention.items() if knob not in ("name", "stages", "position")}
    return made(**{knob: default_of(made, knob) if value == AUTO else value for knob, value in settings.items()})


def _typed_attention(inherited: Settings, own: Settings, option: str) -> Settings:
    """Fills in defaults, and converts the variant's own settings to the types that the module's knobs declare."""
    name = str(own.get("name", inherited.get("name")))
    if name not in ATTENTION:
        raise UsageError(option, None, f"unknown attention {shown(name)}", tuple(ATTENTION), word=name)
    schema = _schema(name)
    settings = asdict(ATTENTION[name]()) | inherited
    for knob, value in own.items():
        if knob not in schema:
            known = [known for known in schema if known != "name"]
            reason = f"attention={name} has no option {shown(knob)}" + ("" if known else "; it has none")
            raise UsageError(option, None, reason, [str(known) for known in known], word=knob)
        if isinstance(settings[knob], bool) and not is_switch(value):
            raise UsageError(option, None, f"{knob}={shown(value)} must be true or false")
        if isinstance(value, bool) and get_type_hints(ATTENTION[name])[knob] is str:
            value = shown(value)  # as it is typed
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
    """Returns what converts a module's knobs; making it takes milliseconds, and a sweep may have many levels."""
    return cast(DictConfig, OmegaConf.structured(ATTENTION[name]))


def _place(attention: Settings, backbone: Backbone, blame: Callable[..., UsageError]) -> dict[str, int]:
    """Checks attention wherever it is to stand, resolves what depends on the backbone; returns `Variant.clamped`."""
    if attention["name"] == NO_ATTENTION:
        return {}
    made = ATTENTIONS[attention["name"]]
    try:
        places = backbone.selected_points(attention["position"], attention["stages"])
        attention["stages"] = _canonical(attention["stages"], backbone)
        _resolve(attention, made, backbone, places)
        knobs = _checked_knobs(attention)
    except OptionError as error:
        raise blame("attention", error) from None
    first: dict[int, InsertionPoint] = {}  # of each width: what fits one fits all
    for place in places:
        first.setdefault(place.channels, place)
    clamped: dict[int, int] = {}
    for channels, place in first.items():
        try:
            knobs.check_channels(channels)
        except OptionError as error:
            where, advice = f"at {place.path} of {backbone.name}: ", _advice(error, knobs, places)
            raise blame("attention", error, where, advice) from None
        if isinstance(knobs, GroupedKnobs) and knobs.groups_on(channels) != knobs.groups:
            clamped[channels] = knobs.groups_on(channels)
    return {str(channels): groups for channels, groups in sorted(clamped.items())}


def _resolve(attention: Settings, made: type[Knobs], backbone: Backbone, places: list[InsertionPoint]) -> None:
    """Puts numbers in the place of `auto`, and of digits."""
    # Of the backbone's usual places, so that variants that put attention elsewhere have as many.
    widths = list(dict.fromkeys(place.channels for place in backbone.insertion_points()))
    for knob in ("groups", "reduction"):
        value = attention.get(knob)
        if isinstance(value, str) and value.isdecimal():
            attention[knob] = int(value)
        elif isinstance(value, str) and value != AUTO:
            raise OptionError(knob, value, f"must be an integer or '{AUTO}'")
    if attention.get("reduction") == AUTO:
        attention["reduction"] = default_reduction(widths)
    if attention.get("groups") == AUTO and issubclass(made, GroupedKnobs):
        attention |= automatic_groups(made, widths, (place.channels for place in places))


def _canonical(stages: str, backbone: Backbone) -> str:
    """Returns one spelling for the same stages, so that the same network is known again."""
    count = max(place.stage for place in backbone.insertion_points())
    chosen = select_stages(stages, count, backbone.name)
    return "all" if len(chosen) == count else "+".join(str(stage) for stage in sorted(chosen))


def _advice(error: OptionError, knobs: Knobs, places: list[InsertionPoint]) -> str:
    if error.option != "groups" or not isinstance(knobs, GroupedKnobs):
        return ""
    everywhere = set.intersection(*(set(knobs.fitting_groups(place.channels)) for place in places))
    fitting = f"valid at all insertion points: {', '.join(map(str, sorted(everywhere)))}; " if everywhere else ""
    return f"; {fitting}groups_policy=clamp uses fewer groups where necessary"


def check_distinct(variants: Iterable[Variant]) -> None:
    """Checks that no variant is listed twice; raises a UsageError if two have one name, or are one network."""
    by_name: dict[str, Variant] = {}
    by_network: dict[str, Variant] = {}
    for variant in variants:
        network = json.dumps(variant.network, sort_keys=True)
        if variant.name in by_name:
            raise UsageError("sweep", None, f"the variant {variant.name} is listed twice")
        if network in by_network:
            raise UsageError("sweep", None, f"{variant.name} is the same network as {by_network[network].name}")
        by_name[variant.name] = by_network[network] = variant
