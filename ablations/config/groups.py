"""The config groups: their choices, built-in or in the user's files, and their composition by Hydra."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ablations.common.errors import UsageError, nearest, shown
from ablations.common.names import visible
from ablations.config.attention import ATTENTION
from ablations.config.data import DATA
from ablations.config.launcher import LAUNCHERS
from ablations.config.measure import MEASURE
from ablations.config.messages import type_reason
from ablations.config.quoting import in_quotes
from ablations.config.schema import BenchConfig, Config, ModelConfig, SweepConfig, TrainConfig
from sa_core.backbones.insertion_points import TIMM
from sa_core.backbones.registry import BACKBONES

_CONF = Path(__file__).with_name("conf")
GROUPS = ("sweep", "data", "model", "attention", "train", "bench", "measure", "launcher")
# The choices of a group are declared in Python or are YAML files of one schema in the group's folder.
_DECLARED: dict[str, Mapping[str, Any]] = {
    "data": DATA,
    "model": {name: ModelConfig(name=name) for name in BACKBONES},
    "attention": ATTENTION,
    "measure": MEASURE,
    "launcher": LAUNCHERS,
}
_IN_FILES: dict[str, type] = {"sweep": SweepConfig, "train": TrainConfig, "bench": BenchConfig}


def default_choices() -> dict[str, str]:
    """Returns the default choice in each config group."""
    defaults = OmegaConf.select(OmegaConf.load(_CONF / "config.yaml"), "defaults")
    return {group: choice for entry in defaults if isinstance(entry, Mapping) for group, choice in entry.items()}


def group_choices(config_dir: str | None = None) -> dict[str, tuple[str, ...]]:
    """Returns the valid choices of each config group."""
    return {
        group: tuple(sorted({*_DECLARED.get(group, ()), *(path.stem for path in _yaml_files(group, config_dir))}))
        for group in GROUPS
    }


def sweep_questions(config_dir: str | None = None) -> dict[str, str]:
    """Returns the research question of every sweep, by the sweep's name."""
    return {path.stem: _question(path) for path in _yaml_files("sweep", config_dir)}


def _yaml_files(group: str, config_dir: str | None = None) -> list[Path]:
    """Returns the built-in files of a group, followed by the user's, each sorted by name."""
    folders = [_CONF] if config_dir is None else [_CONF, Path(config_dir)]
    return [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]


def _question(path: Path) -> str:
    try:
        question = str(OmegaConf.select(OmegaConf.load(path), "question") or "")
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError):
        return f"(cannot be read: {path})"
    return visible(" ".join(question.split()))


def selection(override: Override, choices: tuple[str, ...], config_dir: str | None) -> str:
    """Returns the choice of an override such as `sweep=groups`; raises a UsageError if it is not in `choices`."""
    value = "null" if override.value() is None else override.value()
    group = override.key_or_group
    if override.is_delete() or override.is_add() or override.is_force_add():
        raise UsageError(str(override.input_line), None, f"must have the form {group}=choice", choices, str(value))
    if isinstance(value, str) and (value in choices or (group == "model" and value.startswith(TIMM))):
        return value
    if group == "sweep":
        listing = "".join(f"\n  {name:12} {question}" for name, question in sweep_questions(config_dir).items())
        near = nearest(str(value), choices)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(group, value, f"unknown sweep{hint}\nSweeps (research questions):{listing}")
    if group == "model":
        choices = (*choices, f"{TIMM}<name>")
    raise UsageError(group, value, f"unknown {group}", choices)


def compose_groups(selected: dict[str, str], config_dir: str | None) -> DictConfig:
    """Composes the groups with Hydra; raises a UsageError if one of the user's files is invalid."""
    choices = tuple(selected.items())  # the result is cached where no user's files can change it
    return deepcopy(_composed_once(choices)) if config_dir is None else _composed(choices, config_dir)


def _composed(selected: tuple[tuple[str, str], ...], config_dir: str | None = None) -> DictConfig:
    with _hydra(selected, config_dir) as overrides:
        return compose("config", overrides=overrides)


@dataclass(frozen=True)
class Composition:
    """How Hydra composes a configuration.

    Attributes:
        hydra: Hydra's own configuration.
        sources: provider and path of each entry of the search path.
        defaults: path, package, whether it is `_self_`, and parent of each config.
        tree: the defaults as the lines of an indented tree.
    """

    hydra: DictConfig
    sources: list[tuple[str, str]]
    defaults: list[tuple[str, str, str, str]]
    tree: list[str]


def composition(selected: Mapping[str, str], config_dir: str | None) -> Composition:
    """Returns how Hydra composes the groups; raises a UsageError as `compose_groups`."""
    with _hydra(tuple(selected.items()), config_dir) as overrides:
        hydra = compose("config", overrides=overrides, return_hydra_config=True).hydra
        loader = GlobalHydra.instance().config_loader()
        defaults_list = loader.compute_defaults_list("config", overrides, RunMode.RUN)
    sources = [(source.provider, f"{source.schema}://{source.path}") for source in hydra.runtime.config_sources]
    defaults = [
        (each.config_path or "", each.package or "", str(bool(each.is_self)), each.parent or "")
        for each in defaults_list.defaults
    ]
    return Composition(hydra, sources, defaults, list(_tree(defaults_list.defaults_tree)))


def _tree(node: Any, depth: int = 0) -> Iterator[str]:
    """Yields the lines of Hydra's tree of defaults; its leaves are defaults, without a node around them."""
    children = getattr(node, "children", None) or ()
    default = getattr(node, "node", node)
    name = "<root>" if default.is_virtual() else default.get_config_path() if not default.is_self() else "_self_"
    yield "  " * depth + str(name)
    for child in children:
        yield from _tree(child, depth + 1)


@contextmanager
def _hydra(selected: tuple[tuple[str, str], ...], config_dir: str | None) -> Iterator[list[str]]:
    """Initializes Hydra for the chosen groups; yields the overrides that choose them.

    Raises:
        UsageError: if one of the user's files is invalid.
    """
    _register()
    overrides = [f"{group}={choice}" for group, choice in selected if not choice.startswith(TIMM)]
    own_files: list[Path] = []
    if config_dir is not None:
        # Hydra uses the text after the scheme as the path, without percent-decoding or resolving references.
        overrides.append(f"hydra.searchpath=[{in_quotes(f'file://{Path(config_dir).resolve()}')}]")
        own_files = [Path(config_dir) / group / f"{choice}.yaml" for group, choice in selected]
        own_files = [path for path in own_files if path.exists()]
    for path in own_files:
        group = path.parent.name
        _check_own_file(path, group, DATA if group == "data" else [path.stem for path in _yaml_files(group)])
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(_CONF), version_base="1.3"):
            yield overrides
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        # Built-in choices are valid, and the types in the user's files have been checked: the defaults list is wrong.
        reason = "it includes itself" if isinstance(error, RecursionError) else type_reason(error)
        place = str(own_files[0]) if own_files else "configuration"
        raise UsageError(place, None, f"invalid defaults list: {reason}") from None


_composed_once = cache(_composed)


@cache
def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, declared in _DECLARED.items():
        for name, node in declared.items():
            store.store(group=group, name=name, node=node)


def _check_own_file(path: Path, group: str, taken: Collection[str]) -> None:
    """Checks a user's file before Hydra reads it, so that error messages name the file."""
    if path.stem in taken:
        raise UsageError(str(path), None, f"{path.stem} is the name of a built-in {group}; rename the file")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", path.stem, re.ASCII):
        raise UsageError(str(path), None, "invalid file name: use letters, digits, '.', '-' and '_'")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except RecursionError:
        raise UsageError(str(path), None, "invalid YAML: nested too deeply") from None
    except (YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        reason = type_reason(error) if isinstance(error, OmegaConfBaseException) else " ".join(str(error).split())
        raise UsageError(str(path), None, f"invalid YAML: {reason[:200]}") from None
    schema = _IN_FILES.get(group)
    if schema is None:
        return
    options = [declared.name for declared in fields(schema)]
    if not isinstance(content, dict) or not content:
        raise UsageError(str(path), None, "contains no options", options)
    for key in content:
        if key not in (*options, "defaults"):
            raise UsageError(str(path), None, f"{group} has no option {shown(key)}", options)
    content.pop("defaults", None)
    for key, value in content.items():
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {key: value})
        except OmegaConfBaseException as error:
            raise UsageError(str(path), None, f"{shown(key)}={shown(value)}: {type_reason(error)}") from None
