"""What a study varies, as the parameters of its Optuna trials.

Every trial has a value for each option that its study varies: the sweep's factors, whatever its named variants set, and
the options of the recipe that are tuned, under their names on the command line (`attention`, `attention.groups`). A
parameter that one trial lacks would drop out of Optuna's importances. The distribution covers all that an option may
be, not only the levels of the sweep, because levels are added later and Optuna refuses a parameter whose distribution
changes:

| option                           | distribution                          | value where a network lacks it  |
| module, backbone, choice, switch | categorical: all declared values      | `absent`                        |
| text of an open kind             | categorical: named values, and those  | `absent`                        |
|   (timm/<name>, group:<k>, 2+3)  |   of the study when it is begun       |                                 |
| whole number (groups, reduction) | integers, from one below the least    | one below the least: 0 groups   |
| real number (gate_bias)          | floats within the declared bounds     | the option's default            |

The choices of a categorical are fixed when a study is begun and remembered with it; a value that comes up later and is
none of them, as another model of timm or a module of a later version, is stored as `other`. `auto` never appears:
networks are stored with it resolved. The exact network of a trial is its user attribute `network`, and its replicate is
a user attribute, too: as a parameter it would take importance from the factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ablations.common.settings import Settings
from ablations.config import ATTENTION, ModelConfig, TrainConfig
from ablations.design.variants import Variant
from sa_core.backbones.registry import BACKBONES

ABSENT, OTHER = "absent", "other"
_RECIPE = "train."
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_LARGEST = 65_536  # of an integer that declares no maximum; Optuna lets ranges of numbers grow

Choices = dict[str, list[Any] | None]  # by parameter: the choices of a categorical, None for a number


def choices_of(paths: Iterable[str], variants: Iterable[Variant], known: Choices) -> Choices:
    """Returns the parameters of a study: those that are known already, and further ones.

    Args:
        paths: options that the study varies now.
        variants: the study's variants as far as they are known; their values are among the choices of an open kind.
        known: what was returned when the study was begun or last gone on with.
    """
    found = dict(known)
    networks = [variant.network for variant in variants]
    for path in paths:
        if path not in known:
            found[path] = _choices(path, networks)
    return found


def distributions_of(choices: Choices) -> dict[str, BaseDistribution]:
    """Returns the distribution of each parameter."""
    return {path: _distribution(path, values) for path, values in choices.items()}


def parameters_of(network: Settings, choices: Choices, recipe: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """Returns the value of each parameter of a cell.

    Args:
        network: `{"model": {...}, "attention": {...}}`.
        choices: what `choices_of` returned.
        recipe: all options that it is trained with, by dotted name, as `train.learning_rate`; only needed where some
            are parameters.
    """
    found: dict[str, Any] = {}
    for path, values in choices.items():
        value = recipe[path] if path.startswith(_RECIPE) else _value(network, path)
        if value is None:
            found[path] = _absent_number(path) if values is None else ABSENT
        else:
            found[path] = value if values is None or value in values else OTHER
    return found


def _choices(path: str, networks: Iterable[Settings]) -> list[Any] | None:
    declared = _declared(path)
    if _kind(declared) not in (bool, str):
        return None
    found = () if path.startswith(_RECIPE) else (_value(network, path) for network in networks)
    values = [*_named_values(path, declared), *found]
    return list(dict.fromkeys([*(value for value in values if value is not None), ABSENT, OTHER]))


def _value(network: Settings, path: str) -> Any:
    root, _, name = path.partition(".")
    return network[root].get(name or "name")


def _distribution(path: str, values: list[Any] | None) -> BaseDistribution:
    if values is not None:
        return CategoricalDistribution(values)
    declared = _declared(path)
    highest = [entry.metadata.get("maximum") for entry, _ in declared]
    if _kind(declared) is int:
        return IntDistribution(_absent_number(path), max(_LARGEST, *(int(bound or 0) for bound in highest)))
    least = [entry.metadata.get("minimum") for entry, _ in declared]
    low = min(-1e6 if bound is None else bound for bound in least)
    high = max(1e6 if bound is None else bound for bound in highest)
    return FloatDistribution(low, high)


def _absent_number(path: str) -> Any:
    """Returns the value of a numeric option in a network that has no such option."""
    declared = _declared(path)
    if _kind(declared) is int:
        return int(min(entry.metadata.get("minimum") or 0 for entry, _ in declared)) - 1
    default: Any = declared[0][0].default
    return float(default)


def _declared(path: str) -> list[tuple[Field[Any], Any]]:
    """Returns the declaration and the type of an option in each of the groups that have it."""
    root, _, name = path.partition(".")
    recipe_or_model = {"train": (TrainConfig,), "model": (ModelConfig,)}
    groups = recipe_or_model.get(root, ATTENTION.values())
    return [
        (entry, get_type_hints(group)[entry.name])
        for group in groups
        for entry in fields(group)
        if entry.name == (name or "name")
    ]


def _kind(declared: list[tuple[Field[Any], Any]]) -> type:
    """Returns bool, int, float or str; a number that a word can stand for is a number."""
    types = {kind for _, hint in declared for kind in get_args(hint) or (hint,)}
    return next(kind for kind in (bool, int, float, str) if kind in types)


def _named_values(path: str, declared: list[tuple[Field[Any], Any]]) -> list[Any]:
    if path in ("attention", "model"):
        return list(ATTENTION if path == "attention" else BACKBONES)
    if _kind(declared) is bool:
        return [True, False]
    return [value for entry, _ in declared for key in ("choices", "known") for value in entry.metadata.get(key) or ()]
