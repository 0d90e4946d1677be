"""`--cfg` and `--info`: the configuration of a command line, and how it is composed, in Hydra's format."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from ablations.common.errors import UsageError
from ablations.config import OWNERS, SHOWN_NAMES
from ablations.config.compose import compose_unresolved, parse_override, select_choices
from ablations.config.groups import Composition, composition
from ablations.config.multiverse import without_recipes


def configuration_text(
    verb: str, overrides: Sequence[str], config_dir: str | None, kind: str, package: str | None, *, resolve: bool
) -> str:
    """Returns a configuration as YAML: the study's (`job`), Hydra's own (`hydra`), or both (`all`).

    Args:
        verb: the verb whose options are shown.
        overrides, config_dir: as in `compose_config`.
        kind: `job`, `hydra` or `all`.
        package: the part that is shown, such as `train`; None shows all.
        resolve: whether references to other options are replaced by their values; only with `job`.

    Raises:
        UsageError: if the configuration cannot be composed, or does not have the part.
    """
    if resolve and kind != "job":
        raise UsageError("--resolve", None, f"applies to --cfg job, not to --cfg {kind}")
    config = _job(verb, overrides, config_dir, resolve=resolve) if kind != "hydra" else OmegaConf.create({})
    if kind != "job":
        config["hydra"] = _composition(overrides, config_dir).hydra
    if package in (None, "_global_"):
        return OmegaConf.to_yaml(config).rstrip()
    part = OmegaConf.select(config, str(package))
    if part is None:
        raise UsageError("--package", package, "is not part of the configuration", map(str, config))
    if not OmegaConf.is_config(part):
        return str(part)
    return f"# @package {package}\n{OmegaConf.to_yaml(part)}".rstrip()


def composition_text(verb: str, overrides: Sequence[str], config_dir: str | None, kind: str) -> str:
    """Returns how a configuration is composed; `kind` is `searchpath`, `defaults-tree`, `defaults`, `config` or `all`.

    Raises:
        UsageError: if the configuration cannot be composed.
    """
    composed = _composition(overrides, config_dir)
    headers = ("Config path", "Package", "_self_", "Parent")
    sections = {
        "searchpath": ("Config search path", _table(("Provider", "Search path"), composed.sources)),
        "defaults-tree": ("Defaults tree", composed.tree),
        "defaults": ("Defaults list", _table(headers, composed.defaults)),
        "config": ("Config", [configuration_text(verb, overrides, config_dir, "job", None, resolve=False)]),
    }
    selected = sections.values() if kind == "all" else [sections[kind]]
    return "\n\n".join("\n".join([title, "*" * len(title), *lines]) for title, lines in selected)


def _job(verb: str, overrides: Sequence[str], config_dir: str | None, *, resolve: bool) -> DictConfig:
    """Returns the options of a verb, by their names on the command line."""
    config, unresolved = compose_unresolved(without_recipes(overrides), config_dir)
    values = OmegaConf.to_container(OmegaConf.structured(config) if resolve else unresolved)
    assert isinstance(values, dict)
    recipes = [parse_override(text).value() for text in overrides if text not in without_recipes(overrides)]
    values["recipes"] = recipes[-1] if recipes else []
    return OmegaConf.create(
        {
            SHOWN_NAMES.get(str(key), key): value
            for key, value in values.items()
            if verb in OWNERS.get(str(key), (verb,))
        }
    )


def _composition(overrides: Sequence[str], config_dir: str | None) -> Composition:
    parsed = [parse_override(text) for text in overrides]
    return composition(select_choices(parsed, config_dir), config_dir)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    header, *lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in (headers, *rows)
    ]
    return [header, "-" * len(header), *lines]
