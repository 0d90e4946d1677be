"""A person's own choices for a config group, in YAML files: checked before Hydra reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ablations.common.errors import UsageError, shown
from ablations.config.bench import BenchConfig
from ablations.config.messages import type_reason
from ablations.config.sweep import SweepConfig
from ablations.config.train import TrainConfig

_SCHEMAS: dict[str, type] = {"sweep": SweepConfig, "train": TrainConfig, "bench": BenchConfig}


def check_own_file(path: Path, group: str, taken: Iterable[str]) -> None:
    """Checks a file, so that what is wrong is said of the file and not of Hydra.

    Args:
        path: of the file.
        group: the config group that it is a choice of.
        taken: names of that group that the suite itself has.

    Raises:
        UsageError: if its name is taken or odd, it is no YAML, or its settings are none of the group's.
    """
    if path.stem in taken:
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
    schema = _SCHEMAS.get(group)
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
