"""The config groups: which choices there are in each, and the configuration that Hydra makes of those chosen."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ablations.common.errors import UsageError, nearest
from ablations.config.attention import ATTENTION
from ablations.config.data import DATA
from ablations.config.launcher import LAUNCHERS
from ablations.config.messages import type_reason
from ablations.config.model import ModelConfig
from ablations.config.own_files import check_own_file
from ablations.config.schema import Config
from sa_core.backbones.places import TIMM
from sa_core.backbones.registry import BACKBONES

_CONF = Path(str(files("ablations.config") / "conf"))
GROUPS = ("sweep", "data", "model", "attention", "train", "bench", "launcher")


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


def _question(path: Path) -> str:
    try:
        return str(OmegaConf.select(OmegaConf.load(path), "question") or "")
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError):
        return f"(cannot be read: {path})"


def _yaml_names(group: str) -> list[str]:
    return [path.stem for path in (_CONF / group).glob("*.yaml")]


def selection(override: Override, choices: tuple[str, ...], config_dir: str | None) -> str:
    """Returns the choice that an override of a group makes, of the valid `choices`.

    Raises:
        UsageError: if there is none of this name.
    """
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


def compose_groups(selected: dict[str, str], config_dir: str | None) -> DictConfig:
    """Lets Hydra compose the groups; without files of a person's own, once for the same choices.

    Raises:
        UsageError: if a person's own file does not do.
    """
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
        for path in filter(Path.exists, own_files):
            group = path.parent.name
            check_own_file(path, group, DATA.keys() if group == "data" else _yaml_names(group))
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
