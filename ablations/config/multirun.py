"""Several studies in one command line: expands `-m model=resnet20,resnet56` into the overrides of each, as Hydra does.

Each job is an ordinary study with a distinct name: the one that its overrides would have without `-m`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hydra.core.override_parser.types import Glob

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config, read_override
from ablations.config.groups import GROUPS, group_choices
from ablations.config.multiverse import compose_multiverse

_IN_NAME = ("sweep", "data", "model", "train")  # groups whose choice is part of a study's default name


@dataclass(frozen=True)
class Job:
    """One of several studies: the overrides that only it has, all its overrides, and its name."""

    own: tuple[str, ...]
    overrides: tuple[str, ...]
    study: str


def compose_jobs(arguments: Sequence[str], config_dir: str | None, defaults: Sequence[str] = ()) -> list[Job]:
    """Returns a job for each combination of the listed values, in Hydra's order.

    Args:
        arguments, config_dir: as in `compose_config`.
        defaults: overrides that precede `arguments`.

    Raises:
        UsageError: if a job cannot be composed, or two jobs have the same name.
    """
    # Of several overrides of an option the last one is used, in the position of the first.
    by_key = {read_override(argument).get_key_element(): _values(argument, config_dir) for argument in arguments}
    swept = {key for key, texts in by_key.items() if len(texts) > 1}
    jobs: list[Job] = []
    for texts in product(*by_key.values()):
        own = tuple(text for key, text in zip(by_key, texts, strict=True) if key in swept)
        jobs.append(_job(own, texts, config_dir, defaults))
    for place, job in enumerate(jobs):
        for other in jobs[:place]:
            if job.study == other.study:
                reason = f"{' '.join(other.own)} and {' '.join(job.own)} have the same name"
                raise UsageError("study", job.study, reason)
    return jobs


def _values(argument: str, config_dir: str | None) -> list[str]:
    """Expands an override with several values into overrides with one value each."""
    override = read_override(argument)
    if not override.is_sweep_override():
        return [argument]
    key = override.get_key_element()
    swept: Any = override.value()
    if isinstance(swept, Glob):
        if override.key_or_group not in GROUPS:
            raise UsageError(override.key_or_group, override.get_value_string(), "glob() is for config groups")
        matches = swept.filter(list(group_choices(config_dir)[override.key_or_group]))
        if not matches:
            raise UsageError(override.key_or_group, override.get_value_string(), "matches no choice")
        return [f"{key}={choice}" for choice in matches]
    if not override.is_discrete_sweep():
        raise UsageError(key, override.get_value_string(), "is not a list of values, as a,b or range(1,5)")
    return [f"{key}={text}" for text in override.sweep_string_iterator()]


def _job(own: tuple[str, ...], overrides: Sequence[str], config_dir: str | None, defaults: Sequence[str]) -> Job:
    """Names a study: overrides that only it has, and that are not in its default name, are appended to the name."""
    words = [*defaults, *overrides]
    several = compose_multiverse(words, config_dir, " ".join)
    study = several.name if several else compose_config(words, config_dir).study
    is_named = any(read_override(word).key_or_group == "study" for word in overrides)
    in_name = ("study",) if is_named else ("study", *_IN_NAME)
    added = [_part(word) for word in own if word.lstrip("+").partition("=")[0] not in in_name]
    if not added:
        return Job(own, tuple(overrides), study)
    study = "-".join([study, *added])
    words = [word for word in overrides if read_override(word).key_or_group != "study"]
    words.append(f"study={study}")
    if several is None:
        compose_config([*defaults, *words], config_dir)
    return Job(own, tuple(words), study)


def _part(override: str) -> str:
    """Converts an override to a part of a folder's name: `epochs=3`."""
    key, _, value = override.lstrip("+~").partition("=")
    text = "".join(sign if sign.isalnum() or sign in "._+-" else "_" for sign in value).strip("_")
    return f"{key.rpartition('.')[2]}={text}"
