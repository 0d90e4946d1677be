"""The options that a study varies, as parameters of its Optuna trials.

Every trial has a value for each option that its study varies: the sweep's factors, the options set by named variants,
and the tuned options of the recipe, under their command-line names (`attention`, `attention.groups`). Optuna's
importances exclude a parameter that one trial lacks. The distribution covers the option's whole domain, not only the
levels of the sweep, because levels may be added later and Optuna does not accept a changed distribution:

| option                           | distribution                          | value where a network lacks it  |
| module, backbone, choice, switch | categorical: all declared values      | `absent`                        |
| text of an open kind             | categorical: named values, and those  | `absent`                        |
|   (timm/<name>, group:<k>, 2+3)  |   of the study at its start           |                                 |
| integer (groups, reduction)      | integers, from one below the minimum  | one below the minimum: 0 groups |
| real number (gate_bias)          | floats within the declared bounds     | the option's default            |

The choices of a categorical are fixed and stored at the start of a study; a later value outside them, such as another
timm model or a module of a later version, is stored as `other`. `auto` does not occur, because networks are stored with
it resolved. The exact network of a trial is its user attribute `network`. The replicate is also a user attribute,
because as a parameter it would take importance from the factors.
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
_LARGEST = 65_536  # of an integer without a declared maximum; Optuna accepts growing ranges of numbers

Choices = dict[str, list[Any] | None]  # by parameter: the choices of a categorical, None for a number


def choices_of(paths: Iterable[str], variants: Iterable[Variant], known: Choices) -> Choices:
    """Returns the parameters of a study: the known ones and new ones.

    Args:
        paths: options that the study varies now.
        variants: the study's variants; their values are among the choices of an open kind.
        known: the result when the study was started or last resumed.
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
        choices: the result of `choices_of`.
        recipe: all training options by dotted name, as `train.learning_rate`; only needed if some are parameters.
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
    """Returns the value of a numeric option for a network without this option."""
    declared = _declared(path)
    if _kind(declared) is int:
        return int(min(entry.metadata.get("minimum") or 0 for entry, _ in declared)) - 1
    default: Any = declared[0][0].default
    return float(default)


def _declared(path: str) -> list[tuple[Field[Any], Any]]:
    """Returns the declaration and the type of an option in each group that has it."""
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
    """Returns bool, int, float or str; the type of an option that is a number or `auto` is the number's."""
    types = {kind for _, hint in declared for kind in get_args(hint) or (hint,)}
    return next(kind for kind in (bool, int, float, str) if kind in types)


def _named_values(path: str, declared: list[tuple[Field[Any], Any]]) -> list[Any]:
    if path in ("attention", "model"):
        return list(ATTENTION if path == "attention" else BACKBONES)
    if _kind(declared) is bool:
        return [True, False]
    return [value for entry, _ in declared for key in ("choices", "known") for value in entry.metadata.get(key) or ()]
