"""The same question under several protocols: expands `recipes=[quick,short]` into one configuration for each.

A multiverse analysis (Steegen, Tuerlinckx, Gelman and Vanpaemel 2016) tests whether a verdict depends on choices that
the question leaves open, by reporting the results under all of these choices. A protocol is named by its choices in the
config groups `train`, `model` and `data`; all other overrides apply to every protocol. Each protocol is an ordinary
study: the one of the same command line with the protocol's choices in place of `recipes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from hydra.core.override_parser.types import Override

from ablations.common.errors import SuiteError, UsageError, shown
from ablations.common.urls import hide_passwords
from ablations.config.compose import check_config_dir, compose_config, parse_override, study_name, varies_model
from ablations.config.groups import default_choices, group_choices
from ablations.config.schema import Config
from sa_core.backbones.insertion_points import TIMM

OPTION = "recipes"
GROUPS = {"train": "recipe", "model": "backbone", "data": "data set"}  # config groups of protocols, with their nouns
_JOINS = "+"  # joins the choices of one protocol
_LONGEST = 100  # letters of a folder's name

T = TypeVar("T")
Choices = Mapping[str, str]  # a protocol's choice by group, for the groups that it sets


@dataclass(frozen=True)
class Protocol:
    """One of several protocols.

    Attributes:
        name: as typed, such as `short` or `cifar10+resnet20+cifar`.
        config: the configuration of its study.
        command: the command that runs this study alone.
    """

    name: str
    config: Config
    command: str


@dataclass(frozen=True)
class Multiverse:
    """The same question under several protocols.

    Attributes:
        name: of the report's folder.
        protocols: two or more, in the order typed.
        command: the command line.
    """

    name: str
    protocols: tuple[Protocol, ...]
    command: str

    @property
    def config(self) -> Config:
        """The options that all protocols share: the first protocol's configuration, under the multiverse's name."""
        return replace(self.protocols[0].config, study=self.name)


def without_recipes(arguments: Sequence[str]) -> list[str]:
    """Returns the overrides without those of `recipes`."""
    return [argument for argument in arguments if argument.partition("=")[0].strip("+ ") != OPTION]


def compose_multiverse(
    arguments: Sequence[str], config_dir: str | None, command: Callable[[Sequence[str]], str]
) -> Multiverse | None:
    """Returns the protocols that `recipes` lists; None without `recipes`.

    Args:
        arguments, config_dir: as in `compose_config`.
        command: formats the command with the given overrides.

    Raises:
        UsageError: if a protocol is unknown, listed twice, the only one, or conflicts with another override; and as
            `compose_config`.
    """
    others = without_recipes(arguments)
    typed = [parse_override(argument) for argument in arguments if argument not in others]
    if not typed or typed[-1].value() == []:
        return None
    check_config_dir(config_dir)
    names, overrides = _names(typed[-1]), [parse_override(argument) for argument in others]
    chosen = {name: _choices(name, config_dir) for name in names}
    _check_groups(names, chosen, overrides)
    words = {name: [*others, *(f"{group}={choice}" for group, choice in chosen[name].items())] for name in names}
    configs = dict(zip(names, for_each(names, lambda name: compose_config(words[name], config_dir)), strict=True))
    _check_configs(configs, chosen)
    named = [override for override in overrides if override.key_or_group == "study"]
    study = configs[names[0]].study if named and named[-1].value() not in ("", None) else ""
    if study:
        for name in names:
            configs[name] = replace(configs[name], study=f"{study}-{_in_folder(name)}")
            words[name] = [word for word in words[name] if parse_override(word).key_or_group != "study"]
            words[name].append(f"study={configs[name].study}")
    protocols = tuple(Protocol(name, configs[name], command(words[name])) for name in names)
    return Multiverse(
        study or _default_name(names, chosen, overrides, configs[names[0]]), protocols, command(arguments)
    )


def compose_several(overrides: Sequence[str], call: str, own: str) -> Multiverse:
    """Returns the protocols of a call of the Python function `own`; `call` is the function for a single study.

    Raises:
        UsageError: without `recipes`, or as `compose_multiverse`.
    """

    def command(words: Sequence[str]) -> str:
        name = own if tuple(words) == tuple(overrides) else call
        return hide_passwords(f"{name}({', '.join(map(repr, words))})")

    multiverse = compose_multiverse(overrides, None, command)
    if multiverse is None:
        raise UsageError(OPTION, None, "must list two or more protocols, for example recipes=[quick,cifar]")
    return multiverse


def for_each(protocols: Iterable[str], act: Callable[[str], T]) -> list[T]:
    """Calls `act` with the name of each protocol, and returns the results.

    Raises:
        SuiteError: the first one, with the name of its protocol unless all protocols raise the same.
    """
    names = list(protocols)
    results: list[T] = []
    errors: dict[str, SuiteError] = {}
    for name in names:
        try:
            results.append(act(name))
        except SuiteError as error:
            errors[name] = error
    if errors:
        name, first = next(iter(errors.items()))
        is_common = len(errors) == len(names) and len({str(each) for each in errors.values()}) == 1
        raise (first if is_common else first.within(f"under the protocol {shown(name)}")) from None
    return results


def _names(override: Override) -> list[str]:
    """Returns the names of the listed protocols, as typed."""
    value = override.value()
    if override.is_delete() or override.is_add():
        raise UsageError(str(override.input_line), None, f"must have the form {OPTION}=[quick,cifar]")
    if not isinstance(value, list):
        raise UsageError(OPTION, value, "must be a list such as [quick,cifar]")
    names = [shown(entry) for entry in value]
    if len(names) < 2:
        raise UsageError(OPTION, value, "must list two or more protocols")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(OPTION, value, f"lists {name} twice")
    return names


def _choices(name: str, config_dir: str | None) -> dict[str, str]:
    """Returns a protocol's choices by group."""
    valid = group_choices(config_dir)
    chosen: dict[str, str] = {}
    for word in map(str.strip, name.split(_JOINS)):
        groups = [group for group in GROUPS if word in valid[group]]
        if not groups and word.startswith(TIMM):
            groups = ["model"]
        if not groups:
            names = [*(choice for group in GROUPS for choice in valid[group]), f"{TIMM}<name>"]
            what = f"{shown(word)} is" if word else "has an empty name, which is"
            raise UsageError(OPTION, name, f"{what} not a recipe, backbone or data set", names, word=word)
        if len(groups) > 1:
            kinds = " and of a ".join(GROUPS[group] for group in groups)
            raise UsageError(OPTION, name, f"{word} is ambiguous: it is the name of a {kinds}; rename one of the files")
        if groups[0] in chosen:
            raise UsageError(OPTION, name, f"selects more than one {GROUPS[groups[0]]}: {chosen[groups[0]]}, {word}")
        chosen[groups[0]] = word
    return chosen


def _check_groups(names: Sequence[str], chosen: Mapping[str, Choices], overrides: Iterable[Override]) -> None:
    """Checks that no other override sets a group that a protocol sets."""
    for override in overrides:
        for name in names:
            choice = chosen[name].get(override.key_or_group)
            if choice is not None:
                group = override.key_or_group
                reason = (
                    f"conflicts with the protocol {name} of {OPTION}, which sets {group}={choice}; remove one of them"
                )
                raise UsageError(group, override.value(), reason)


def _check_configs(configs: Mapping[str, Config], chosen: Mapping[str, Choices]) -> None:
    """Checks that the sweep can be run under each protocol, and that all protocols differ."""
    for name, config in configs.items():
        if config.sweep.sampler == "tpe":
            reason = "is not supported in a search, which would confirm different variants under each protocol"
            raise UsageError(OPTION, list(configs), reason)
        if "model" in chosen[name] and varies_model(config):
            reason = f"{chosen[name]['model']} is a backbone, which is a factor of sweep={config.sweep.name}"
            raise UsageError(OPTION, name, reason)
    names = list(configs)
    for place, name in enumerate(names):
        for other in names[:place]:
            if replace(configs[name], study="") == replace(configs[other], study=""):
                raise UsageError(OPTION, names, f"{other} and {name} are the same protocol")


def _default_name(
    names: Sequence[str], chosen: Mapping[str, Choices], overrides: Iterable[Override], config: Config
) -> str:
    """Returns the default name of the report's folder: `groups-digits-resnet8-quick-vs-short`."""
    groups = {group for name in names for group in chosen[name]}
    train = [str(override.value()) for override in overrides if override.key_or_group == "train"]
    base = study_name(config, train[-1] if train else default_choices()["train"], without=groups)
    name = f"{base}-{'-vs-'.join(map(_in_folder, names))}"
    if len(name) > _LONGEST:
        reason = (
            f"is required: the default name of {len(names)} protocols exceeds {_LONGEST} characters; add study=NAME"
        )
        raise UsageError("study", None, reason)
    return name


def _in_folder(name: str) -> str:
    """Converts a protocol's name to a part of a folder's name."""
    return name.replace("/", "-").replace(" ", "")
