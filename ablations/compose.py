"""Reads the command line with Hydra's grammar and config groups into a checked `Config`.

Hydra composes the groups (`sweep=groups`, `train=quick`); the remaining overrides are applied one at a time, so that
what is wrong with one is said of that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ablations.config import (
    ATTENTION,
    DATA,
    LAUNCHERS,
    SHOWN_NAMES,
    BenchConfig,
    Config,
    ModelConfig,
    RayConfig,
    SweepConfig,
    TrainConfig,
    check_ranges,
)
from ablations.errors import UsageError, nearest, type_reason
from ablations.variants import flatten
from sa_core.places import BACKBONES, TIMM

_CONF = Path(str(files("ablations") / "conf"))
GROUPS = ("sweep", "data", "model", "attention", "train", "bench", "launcher")
# Below these, keys are the user's own: a person's factors and variants are in no schema.
_RAY_OPTIONS = tuple(declared.name for declared in fields(RayConfig))
_FREE = ("sweep.factors", "sweep.variants")


def compose_config(arguments: Sequence[str], config_dir: str | None = None) -> Config:
    """Returns the configuration that command-line overrides ask for.

    Args:
        arguments: overrides, as `sweep=groups` and `train.epochs=3`.
        config_dir: a folder with more choices, as `sweep/mine.yaml`.

    Raises:
        UsageError: for the first override that is not understood, and for any value out of its range.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UsageError("--config-dir", config_dir, "there is no such folder")
    overrides = [_parse(argument) for argument in arguments]
    choices = group_choices(config_dir)
    selected = default_choices()
    for override in overrides:
        if override.key_or_group in GROUPS:
            selected[override.key_or_group] = _selection(override, choices[override.key_or_group], config_dir)
    config = _compose_groups(selected, config_dir)
    if selected["model"].startswith(TIMM):
        config.model.name = selected["model"]
    for override in overrides:
        if override.key_or_group not in GROUPS:
            _apply(config, override)
    config.sweep.name = selected["sweep"]
    try:
        result = cast(Config, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise UsageError(error.full_key or "configuration", None, type_reason(error)) from None
    replaced = {override.key_or_group for override in overrides}
    if not result.sweep.question or ("sweep.factors" in replaced and "sweep.question" not in replaced):
        # What the sweep's file asks is not what is asked here.
        factors = ", ".join(flatten(result.sweep.factors) or result.sweep.variants)
        result.sweep.question = f"What difference do these make: {factors}?"
    result.study = result.study or _study_name(result)
    check_ranges(result)
    return result


def _study_name(config: Config) -> str:
    parts = [config.sweep.name, config.data.name]
    varied = config.sweep.factors.get("model")
    if not isinstance(varied, list) and "name" not in (varied or ()):
        parts.append(config.model.name.replace("/", "-"))
    return "-".join(parts)


def default_choices() -> dict[str, str]:
    """Returns what is chosen in each config group where the command line chooses nothing."""
    defaults = cast(DictConfig, OmegaConf.load(_CONF / "config.yaml")).defaults
    return {
        str(group): str(choice)
        for entry in defaults
        if isinstance(entry, DictConfig)
        for group, choice in entry.items()
    }


def group_choices(config_dir: str | None = None) -> dict[str, tuple[str, ...]]:
    """Returns the valid choices of each config group."""
    builtin: dict[str, Iterable[str]] = {
        "data": DATA,
        "model": BACKBONES,
        "attention": ATTENTION,
        "sweep": _yaml_names("sweep"),
        "train": _yaml_names("train"),
        "bench": _yaml_names("bench"),
        "launcher": LAUNCHERS,
    }
    choices = {group: set(names) for group, names in builtin.items()}
    if config_dir is not None:
        for group in GROUPS:
            choices[group] |= {path.stem for path in (Path(config_dir) / group).glob("*.yaml")}
    return {group: tuple(sorted(names)) for group, names in choices.items()}


def sweep_questions(config_dir: str | None = None) -> dict[str, str]:
    """Returns the question of every sweep, by its name."""
    folders = [_CONF] + ([Path(config_dir)] if config_dir else [])
    paths = [path for folder in folders for path in sorted((folder / "sweep").glob("*.yaml"))]
    return {path.stem: _question(path) for path in paths}


def option_leaves(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of every option that the command line can set."""
    for key in map(str, config):
        path, node = prefix + SHOWN_NAMES.get(key, key), OmegaConf.select(config, key)
        if isinstance(node, DictConfig) and path not in _FREE:
            yield from option_leaves(node, f"{path}.")
        elif path not in (f"{group}.name" for group in GROUPS):
            yield path


def _question(path: Path) -> str:
    try:
        return str(OmegaConf.select(OmegaConf.load(path), "question") or "")
    except (YAMLError, OmegaConfBaseException, OSError, ValueError):
        return f"(cannot be read: {path})"


def _check_file(path: Path, group: str) -> None:
    """Checks a person's own file, so that what is wrong is said of the file and not of Hydra."""
    if not path.exists():
        return  # a choice of ours
    if path.stem in (DATA.keys() if group == "data" else _yaml_names(group)):
        raise UsageError(str(path), None, f"{path.stem} is the name of a {group} of the suite; give the file another")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", path.stem, re.ASCII):
        raise UsageError(str(path), None, "the name of the file may have letters, digits, '.', '-' and '_'")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(str(path), None, f"cannot be read as YAML: {reason[:200]}") from None
    schema = {"sweep": SweepConfig, "train": TrainConfig, "bench": BenchConfig}.get(group)
    if schema is None:
        return
    known = [declared.name for declared in fields(schema)]
    if not isinstance(content, dict) or not content:
        raise UsageError(str(path), None, "has no settings", known)
    for key in content:
        if key not in (*known, "defaults"):
            raise UsageError(str(path), None, f"{group} has no option {key!s}", known)
    try:
        OmegaConf.merge(OmegaConf.structured(schema), {key: content[key] for key in content if key != "defaults"})
    except OmegaConfBaseException as error:
        raise UsageError(str(path), None, f"{error.full_key}: {type_reason(error)}") from None


def _yaml_names(group: str) -> list[str]:
    return [path.stem for path in (_CONF / group).glob("*.yaml")]


def _parse(argument: str) -> Override:
    key, equals, value = argument.partition("=")
    # Hydra's grammar wants quotes around text with `=` in it; where nothing else can be meant, they are put there, so
    # that sweep.baseline=groups=4 and storage=postgresql://host/db?sslmode=require are understood.
    readings = [argument]
    if equals and not set(value) & set("\"'[]{}\\,$"):
        readings.append(f'{key}="{value}"')
    override = None
    for reading in readings:
        with suppress(HydraException):
            override = override or OverridesParser.create().parse_override(reading)
    if override is None:
        reason = "is not understood; options are given as name=value" if not equals else "is not understood"
        raise UsageError(key, value or None, reason)
    if override.is_sweep_override():
        raise UsageError(
            override.key_or_group,
            value,
            "takes one value; a list is written [1,2], and what a study varies goes into sweep.factors",
        )
    return override


def _selection(override: Override, choices: tuple[str, ...], config_dir: str | None) -> str:
    value = "null" if override.value() is None else override.value()
    group = override.key_or_group
    if override.is_delete() or override.is_add():
        raise UsageError(group, value, "a group is chosen with name=choice", choices)
    if isinstance(value, str) and (value in choices or (group == "model" and value.startswith(TIMM))):
        return value
    if group == "sweep":
        listing = "".join(f"\n  {name:12} {question}" for name, question in sweep_questions(config_dir).items())
        near = nearest(str(value), choices)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(group, value, f"there is no such sweep{hint}\nThe sweeps and their questions:{listing}")
    if group == "model":
        choices = (*choices, f"{TIMM}<name>")
    raise UsageError(group, value, f"there is no such {group}", choices)


def _compose_groups(selected: dict[str, str], config_dir: str | None) -> DictConfig:
    """Lets Hydra compose the groups."""
    _register()
    if config_dir is not None:
        for group, choice in selected.items():
            _check_file(Path(config_dir) / group / f"{choice}.yaml", group)
    overrides = [f"{group}={choice}" for group, choice in selected.items() if not choice.startswith(TIMM)]
    if config_dir is not None:
        overrides.append(f"hydra.searchpath=['file://{Path(config_dir).resolve()}']")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(_CONF), version_base="1.3"):
            return compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError("configuration", " ".join(overrides) or None, type_reason(error)) from None


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for name, data in DATA.items():
        store.store(group="data", name=name, node=data)
    for name, launcher in LAUNCHERS.items():
        store.store(group="launcher", name=name, node=launcher)
    for name, attention in ATTENTION.items():
        store.store(group="attention", name=name, node=attention)
    for name in BACKBONES:
        store.store(group="model", name=name, node=ModelConfig(name=name))


def _apply(config: DictConfig, override: Override) -> None:
    key = override.key_or_group
    free = next((root for root in _FREE if key == root or key.startswith(f"{root}.")), None)
    if override.is_delete():
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(config, parent) if free and parent else None
        if not isinstance(node, DictConfig) or last not in node:
            raise UsageError(f"~{key}", None, "only entries of sweep.factors and sweep.variants can be removed")
        OmegaConf.set_struct(node, False)
        del node[last]
        return
    value = override.value()
    group, _, name = key.partition(".")
    if group in GROUPS and name == "name":
        raise UsageError(key, value, f"is chosen with {group}={value}")
    if free is None and key not in (names := [*GROUPS, *option_leaves(config)]):
        if group == "attention" and name:
            own = [known for known in names if known.startswith("attention.")]
            raise UsageError(key, None, f"attention {config.attention.name} has no such knob", own)
        if group == "launcher" and name in _RAY_OPTIONS:
            raise UsageError(key, value, "is an option of launcher=ray, which is to be chosen with it")
        raise UsageError(key, None, "there is no such option", names)
    try:
        # All factors at once, as sweep.factors={...}, are those and no others.
        known_as = next((name for name, shown in SHOWN_NAMES.items() if shown == key), key)
        OmegaConf.update(config, known_as, value, force_add=free is not None, merge=key not in _FREE)
    except OmegaConfBaseException as error:
        raise UsageError(key, value, type_reason(error)) from None
    except (ValueError, TypeError):  # of a name below a list
        raise UsageError(key, value, f"{key.rpartition('.')[0]} has values, and no names below it") from None
