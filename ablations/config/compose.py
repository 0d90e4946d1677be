"""Parses the command line with Hydra's grammar and config groups into a checked `Config`.

Hydra composes the groups (`sweep=groups`, `train=quick`); the remaining overrides are applied one at a time, so that
an error message names the override at fault.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, cast, get_origin, get_type_hints
from unicodedata import normalize

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ablations.common.errors import UsageError, shown
from ablations.common.names import check_sentence
from ablations.common.settings import flatten
from ablations.config.data import DATA
from ablations.config.groups import GROUPS, compose_groups, default_choices, group_choices, selection
from ablations.config.launcher import options_of_launcher, owners_of
from ablations.config.messages import TAKES_LIST, TAKES_SETTINGS, interpolation_reason, type_reason
from ablations.config.option import SHOWN_NAMES, check_ranges, is_switch
from ablations.config.quoting import quoting_advice
from ablations.config.schema import Config
from sa_core.backbones.insertion_points import TIMM

# Mappings whose keys the user chooses: factors, variants and the search space are not in the schema.
_FREE = ("sweep.factors", "sweep.variants", "tune.space")


def compose_config(arguments: Sequence[str], config_dir: str | None = None) -> Config:
    """Returns the configuration of overrides; `config_dir` can hold more choices, such as `sweep/mine.yaml`.

    Raises:
        UsageError: for the first invalid override, and for any value out of its range.
    """
    return _checked(*_composed(arguments, config_dir))


def compose_unresolved(arguments: Sequence[str], config_dir: str | None = None) -> tuple[Config, DictConfig]:
    """Returns the configuration of `compose_config`, and the same with unresolved references to other options.

    Raises:
        UsageError: as `compose_config`.
    """
    config, selected, overrides = _composed(arguments, config_dir)
    result = _checked(config, selected, overrides)
    for path, text in (("study", result.study), ("sweep.question", result.sweep.question)):
        parent, _, last = path.rpartition(".")
        if not OmegaConf.is_interpolation(OmegaConf.select(config, parent) if parent else config, last):
            OmegaConf.update(config, path, text)
    return result, config


def select_choices(overrides: Sequence[Override], config_dir: str | None = None) -> dict[str, str]:
    """Returns the choice in each config group; raises a UsageError for an unknown choice."""
    check_config_dir(config_dir)
    choices = group_choices(config_dir)
    selected = default_choices()
    for override in overrides:
        if override.key_or_group in GROUPS:
            selected[override.key_or_group] = selection(override, choices[override.key_or_group], config_dir)
    return selected


def _composed(
    arguments: Sequence[str], config_dir: str | None
) -> tuple[DictConfig, dict[str, str], Sequence[Override]]:
    """Returns the composed configuration, the choice in each group, and the parsed overrides."""
    overrides = [parse_override(argument) for argument in arguments]
    selected = select_choices(overrides, config_dir)
    config = compose_groups(selected, config_dir)
    if selected["model"].startswith(TIMM):
        config.model.name = selected["model"]
    names = [*GROUPS, *_option_names(config)]  # listed once: overrides cannot add options
    for override in overrides:
        if override.key_or_group not in GROUPS:
            _apply_override(config, override, names)
    config.sweep.name = selected["sweep"]
    return config, selected, overrides


def _checked(config: DictConfig, selected: dict[str, str], overrides: Sequence[Override]) -> Config:
    """Resolves and checks a configuration, and fills in the study's name and question."""
    _check_interpolations(config)
    try:
        result = cast(Config, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise UsageError(error.full_key or "configuration", None, type_reason(error)) from None
    replaced = {override.key_or_group for override in overrides}
    if not result.sweep.question or ("sweep.factors" in replaced and "sweep.question" not in replaced):
        # The question in the sweep's file is about the file's factors.
        factors = ", ".join(flatten(result.sweep.factors) or result.sweep.variants)
        result.sweep.question = f"What is the effect of {factors}?"
    result.sweep.question = " ".join(result.sweep.question.split("\n")).strip()  # a file may have a multi-line question
    check_sentence("sweep.question", result.sweep.question)
    result.study = normalize("NFC", result.study or study_name(result, selected["train"]))
    if result.recipes:
        raise UsageError("recipes", result.recipes, "describes several studies: use run_multiverse or load_multiverse")
    check_ranges(result)
    return result


def check_config_dir(config_dir: str | None) -> None:
    """Raises a UsageError if `config_dir` is given and does not exist."""
    if config_dir is not None and not os.path.isdir(config_dir):  # noqa: PTH112 (Path.is_dir raises for long names)
        raise UsageError("--config-dir", config_dir, "no such folder")


def study_name(config: Config, train: str, without: Collection[str] = ()) -> str:
    """Returns the default name of a study: `<sweep>-<data>-<model>`, and `-<recipe>` unless it is the default.

    Args:
        config: the study.
        train: the chosen recipe.
        without: groups (data, model, train) to omit; the model is also omitted if the sweep varies it.
    """
    parts = {"data": config.data.name, "model": config.model.name.replace("/", "-")}
    if train != default_choices()["train"]:
        parts["train"] = train
    omitted = {*without, *(["model"] if varies_model(config) else [])}
    return "-".join([config.sweep.name, *(part for group, part in parts.items() if group not in omitted)])


def varies_model(config: Config) -> bool:
    """Returns whether the backbone is a factor of the sweep."""
    varied = config.sweep.factors.get("model")
    return isinstance(varied, list) or "name" in (varied or ())


def parse_override(argument: str) -> Override:
    """Parses an override with a single value, such as `train.epochs=3`; list options accept `a,b` for `[a,b]`.

    Raises:
        UsageError: if it cannot be parsed, or has several values for an option with a single value.
    """
    override = read_override(argument)
    if override.is_sweep_override():
        key, value = override.key_or_group, override.get_value_string()
        if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP and key in _list_options():
            return read_override(f"{override.get_key_element()}=[{value}]")
        reason = (
            "expects a single value; write lists as [1,2], and factors of a study as sweep.factors; -m runs one study "
            "per value"
        )
        is_text = "," in value and any(map(str.isalpha, value)) and not value.endswith(")")
        advice = quoting_advice(key, value) if is_text else ""
        raise UsageError(key, value, reason + advice)
    return override


@cache
def _list_options() -> frozenset[str]:
    """Returns the names of all options that accept a list."""

    def names(schema: type[Any], prefix: str = "") -> Iterator[str]:
        for name, hint in get_type_hints(schema).items():
            if is_dataclass(hint):
                yield from names(cast(type[Any], hint), f"{prefix}{name}.")
            elif hint is Any or get_origin(hint) is list:
                yield SHOWN_NAMES.get(f"{prefix}{name}", f"{prefix}{name}")

    return frozenset([*names(Config), *(name for schema in DATA.values() for name in names(schema, "data."))])


def read_override(argument: str) -> Override:
    """Parses an override with one or several values; raises a UsageError if it is invalid."""
    key, equals, value = argument.partition("=")
    if not key.strip("+~ "):
        raise UsageError(argument or "''", None, "must have the form name=value")
    # Hydra's grammar requires quotes around text with `=`. They are added where the text is unambiguous, so that
    # sweep.baseline=groups=4 and storage=postgresql://host/db?sslmode=require are valid.
    readings = [argument]
    if equals and not set(value) & set("\"'[]{}\\,$"):
        readings.append(f'{key}="{value}"')
    override = None
    for reading in readings:
        with suppress(HydraException, ValueError):  # ValueError: an integer of thousands of digits
            override = override or OverridesParser.create().parse_override(reading)
    if override is None:
        reason = "cannot be parsed" + (quoting_advice(key, value) if equals else "; options have the form name=value")
        raise UsageError(key, value or None, reason)
    if override.package is not None:
        raise UsageError(key, value or None, "'@' (package override) is not supported")
    return override


def _apply_override(config: DictConfig, override: Override, names: Sequence[str]) -> None:
    """Sets or removes an option; raises a UsageError if it is not among `names`, or the value is invalid."""
    key = override.key_or_group
    free = next((root for root in _FREE if key == root or key.startswith(f"{root}.")), None)
    if override.is_delete():
        _delete(config, override, is_free=free is not None)
        return
    value = override.value()
    group, _, name = key.partition(".")
    if group in GROUPS and name == "name":
        raise UsageError(key, value, f"cannot be set; use {group}={value}")
    if free is None and key not in names:
        if group == "attention" and name:
            of_attention = [option for option in names if option.startswith("attention.")]
            raise UsageError(key, None, f"attention={config.attention.name} has no such option", of_attention)
        if group == "launcher" and (owners := owners_of(name)):
            raise _of_another_launcher(key, value, owners, config.launcher.name)
        raise UsageError(key, None, "unknown option", names)
    try:
        path = next((name for name, shown_name in SHOWN_NAMES.items() if shown_name == key), key)
        if override.is_add() and not isinstance(value, (dict, list)) and _is_set(config, path):
            raise UsageError(f"+{key}", value, "is already set; leave out + to change it, or write ++")
        if free is None:
            value = _as_declared(config, path, value, override)
        # sweep.factors={...} replaces all factors; +sweep.factors={...} adds to them.
        merge = key not in _FREE or override.is_add() or override.is_force_add()
        OmegaConf.update(config, path, value, force_add=free is not None, merge=merge)
    except OmegaConfBaseException as error:
        reason = type_reason(error)
        if "Cannot merge" in str(error):
            reason = TAKES_LIST if isinstance(value, dict) else TAKES_SETTINGS
        raise UsageError(key, value, reason) from None
    except OverflowError:
        raise UsageError(key, value, "is out of range") from None
    except (ValueError, TypeError):  # a name below a list
        raise UsageError(key, value, f"{key.rpartition('.')[0]} is a list and has no options") from None


def _delete(config: DictConfig, override: Override, *, is_free: bool) -> None:
    """Removes a factor, variant or range; if the override has a value, it must equal the entry's value."""
    key, value = override.key_or_group, override.value()
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if is_free and key not in _FREE else None
    if not isinstance(node, DictConfig) or last not in node:
        reason = "only entries of sweep.factors, sweep.variants and tune.space can be removed"
        raise UsageError(f"~{key}", None, reason)
    if value is not None and value != (found := _plain(node[last])):
        raise UsageError(f"~{key}", value, f"does not match the value, {shown(found)}")
    OmegaConf.set_struct(node, False)
    del node[last]


def _is_set(config: DictConfig, key: str) -> bool:
    try:
        return OmegaConf.select(config, key) is not None
    except OmegaConfBaseException:  # a reference, which is checked later, or a name below a value
        return False


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node) if OmegaConf.is_config(node) else node


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_another_launcher(key: str, value: Any, owners: Sequence[str], chosen: str) -> UsageError:
    """Returns the error for an option that the selected launcher does not have."""
    listed = " and ".join(f"launcher={name}" for name in owners)
    options = ", ".join(f"launcher.{name}" for name in options_of_launcher(chosen)) or "none"
    reason = f"is an option of {listed}, but launcher={chosen} is selected; its options: {options}"
    return UsageError(key, value, reason)


def _as_declared(config: DictConfig, path: str, value: Any, override: Override) -> Any:
    """Converts a value to the declared type of its option.

    Text options keep the text as typed (`study=007`, `study=true`), switches accept 0 and 1 but no other numbers,
    percentages may end with a percent sign, and `export=csv` means `export=[csv]`.
    """
    parent, _, last = path.rpartition(".")
    owner = OmegaConf.get_type(config, parent) if parent else Config
    hint = get_type_hints(owner).get(last) if is_dataclass(owner) else None
    declared = next((field for field in fields(owner) if field.name == last), None) if is_dataclass(owner) else None
    if declared and declared.metadata.get("percent") and isinstance(value, str):
        number = value.removesuffix("%").strip()
        return number if _is_number(number) else value
    if hint is bool and not is_switch(value):
        raise UsageError(override.key_or_group, value, "must be true or false")
    if hint is str and isinstance(value, (bool, int, float)):
        return str(override.input_line).partition("=")[2].strip()
    if hint == (float | str) and type(value) is int:
        return float(value)  # as OmegaConf converts values of float options
    if get_origin(hint) is list and isinstance(value, str) and not value.startswith("${"):
        return [value]
    return value


def _option_names(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of every option that the command line can set."""
    for key in map(str, config):
        path = prefix + SHOWN_NAMES.get(key, key)
        # A reference may not be resolvable yet.
        node = None if OmegaConf.is_interpolation(config, key) else OmegaConf.select(config, key)
        if isinstance(node, DictConfig) and path not in _FREE:
            yield from _option_names(node, f"{path}.")
        elif path not in (f"{group}.name" for group in GROUPS):
            yield path


def _check_interpolations(config: DictConfig) -> None:
    """Checks that references such as `${seed}` and `${oc.env:HOME}` can be resolved to a value."""
    for path, text in _interpolations(OmegaConf.to_container(config, resolve=False)):
        shown_path = SHOWN_NAMES.get(path, path)
        try:
            node = OmegaConf.select(config, path, throw_on_missing=True)
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True)
        except Exception as error:  # resolvers may raise anything
            raise UsageError(shown_path, text, interpolation_reason(error)) from None
        if node is None:
            raise UsageError(shown_path, text, "refers to an option without a value")


def _interpolations(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted name and the text of each reference."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _interpolations(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _interpolations(value, f"{path}[{number}]")
    elif isinstance(node, str) and "${" in node:
        yield path, node
