"""Reads the command line with Hydra's grammar and config groups into a checked `Config`.

Hydra composes the groups (`sweep=groups`, `train=quick`); the remaining overrides are applied one at a time, so that
what is wrong with one is said of that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationValidationError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)
from yaml import YAMLError

from ablations.common.errors import REFERENCES, TAKES_LIST, TAKES_SETTINGS, UsageError, nearest, shown, type_reason
from ablations.common.settings import flatten
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
    is_switch,
)
from sa_core.places import TIMM
from sa_core.registry import BACKBONES

_CONF = Path(str(files("ablations.config") / "conf"))
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
    if config_dir is not None and not _is_folder(config_dir):
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
    _check_interpolations(config)
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
        path = prefix + SHOWN_NAMES.get(key, key)
        # What another option is to fill in may not be there to be looked at yet.
        node = None if OmegaConf.is_interpolation(config, key) else OmegaConf.select(config, key)
        if isinstance(node, DictConfig) and path not in _FREE:
            yield from option_leaves(node, f"{path}.")
        elif path not in (f"{group}.name" for group in GROUPS):
            yield path


def _question(path: Path) -> str:
    try:
        return str(OmegaConf.select(OmegaConf.load(path), "question") or "")
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError):
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
    except RecursionError:
        raise UsageError(str(path), None, "cannot be read as YAML: it is nested too deeply") from None
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        reason = type_reason(error) if isinstance(error, OmegaConfBaseException) else " ".join(str(error).split())
        raise UsageError(str(path), None, f"cannot be read as YAML: {reason[:200]}") from None
    schema = {"sweep": SweepConfig, "train": TrainConfig, "bench": BenchConfig}.get(group)
    if schema is None:
        return
    known = [declared.name for declared in fields(schema)]
    if not isinstance(content, dict) or not content:
        raise UsageError(str(path), None, "has no settings", known)
    for key in content:
        if key not in (*known, "defaults"):
            raise UsageError(str(path), None, f"{group} has no option {shown(key)}", known)
    content.pop("defaults", None)
    for key, value in content.items():
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {key: value})
        except OmegaConfBaseException as error:
            raise UsageError(str(path), None, f"{shown(key)}={shown(value)}: {type_reason(error)}") from None


def _yaml_names(group: str) -> list[str]:
    return [path.stem for path in (_CONF / group).glob("*.yaml")]


def _parse(argument: str) -> Override:
    key, equals, value = argument.partition("=")
    if not key.strip("+~ "):
        raise UsageError(argument or "''", None, "names no option; options are given as name=value")
    # Hydra's grammar wants quotes around text with `=` in it; where nothing else can be meant, they are put there, so
    # that sweep.baseline=groups=4 and storage=postgresql://host/db?sslmode=require are understood.
    readings = [argument]
    if equals and not set(value) & set("\"'[]{}\\,$"):
        readings.append(f'{key}="{value}"')
    override = None
    for reading in readings:
        with suppress(HydraException, ValueError):  # of an integer of thousands of digits
            override = override or OverridesParser.create().parse_override(reading)
    if override is None:
        reason = "is not understood; options are given as name=value" if not equals else "is not understood"
        raise UsageError(key, value or None, reason)
    if override.package is not None:
        raise UsageError(key, value or None, f"'@' has no meaning here; {override.key_or_group} stands where it is")
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
        raise UsageError(str(override.input_line), None, f"a group is chosen with {group}=choice", choices, str(value))
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
    """Lets Hydra compose the groups; without files of a person's own, once for the same choices."""
    if config_dir is None:
        return deepcopy(_composed_once(tuple(selected.items())))
    return _composed(selected, config_dir)


@cache
def _composed_once(selected: tuple[tuple[str, str], ...]) -> DictConfig:
    return _composed(dict(selected), None)


def _composed(selected: dict[str, str], config_dir: str | None) -> DictConfig:
    _register()
    own_files: list[Path] = []
    if config_dir is not None:
        own_files = [Path(config_dir) / group / f"{choice}.yaml" for group, choice in selected.items()]
        for path in own_files:
            _check_file(path, path.parent.name)
    overrides = [f"{group}={choice}" for group, choice in selected.items() if not choice.startswith(TIMM)]
    if config_dir is not None:
        overrides.append(f"hydra.searchpath=['file://{Path(config_dir).resolve()}']")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(_CONF), version_base="1.3"):
            return compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        # The suite's own choices fit; what does not is in a person's file, and its types have been checked.
        own = next((str(path) for path in own_files if path.exists()), None)
        reason = "it includes itself" if isinstance(error, RecursionError) else type_reason(error)
        raise UsageError(own or "configuration", None, f"its defaults do not do: {reason}") from None


@cache
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
        node = OmegaConf.select(config, parent) if free and key not in _FREE else None
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
        known_as = next((name for name, shown in SHOWN_NAMES.items() if shown == key), key)
        if free is None:
            value = _as_declared(config, known_as, value, override)
        # All factors at once, as sweep.factors={...}, are those and no others.
        OmegaConf.update(config, known_as, value, force_add=free is not None, merge=key not in _FREE)
    except OmegaConfBaseException as error:
        reason = type_reason(error)
        if "Cannot merge" in str(error):
            reason = TAKES_LIST if isinstance(value, dict) else TAKES_SETTINGS
        raise UsageError(key, value, reason) from None
    except OverflowError:
        raise UsageError(key, value, "is too large for a number") from None
    except (ValueError, TypeError):  # of a name below a list
        raise UsageError(key, value, f"{key.rpartition('.')[0]} has values, and no names below it") from None


def _as_declared(config: DictConfig, known_as: str, value: Any, override: Override) -> Any:
    """Takes `study=007` and `study=true` for text as it was typed; and no number but 0 and 1 for true or false."""
    parent, _, last = known_as.rpartition(".")
    owner = OmegaConf.get_type(config, parent) if parent else Config
    hint = get_type_hints(owner).get(last) if is_dataclass(owner) else None
    if hint is bool and not is_switch(value):
        raise UsageError(override.key_or_group, value, "is neither true nor false")
    if hint is str and isinstance(value, (bool, int, float)):
        return str(override.input_line).partition("=")[2].strip()
    return value


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # of a name that no folder can have
        return False


def _check_interpolations(config: DictConfig) -> None:
    """Checks what options take from others (`${seed}`) or from the environment (`${oc.env:HOME}`).

    Raises:
        UsageError: for the first that takes it from nowhere.
    """
    for path, text in _interpolations(OmegaConf.to_container(config, resolve=False)):
        shown_path = SHOWN_NAMES.get(path, path)
        try:
            node = OmegaConf.select(config, path, throw_on_missing=True)
            if OmegaConf.is_config(node):
                OmegaConf.to_container(node, resolve=True)
            if node is None:
                raise UsageError(shown_path, text, "refers to nothing")
        except UsageError:
            raise
        except Exception as error:  # whatever a resolver does
            raise UsageError(shown_path, text, _interpolation_reason(error)) from None


def _interpolations(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted name and the text of what refers to something else."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _interpolations(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _interpolations(value, f"{path}[{number}]")
    elif isinstance(node, str) and "${" in node:
        yield path, node


_UNRESOLVED = {
    InterpolationKeyError: "refers to an option that there is not",
    UnsupportedInterpolationType: REFERENCES,
}


def _interpolation_reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    if isinstance(error, InterpolationValidationError):
        return f"what it refers to {type_reason(error)}"
    for kind, reason in _UNRESOLVED.items():
        if isinstance(error, kind):
            return reason
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "refers to itself"
    if found := re.search(r"Environment variable '(.*)' not found", first):
        return f"there is no environment variable {found.group(1)}"
    return "cannot be resolved"
