"""The tables of all options in `ablations/OPTIONS.md`, generated from the declarations of the command line.

    python -m tests.option_tables

writes the file; `tests/test_documents.py` checks that it is up to date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from ablations.common.files import write_whole
from ablations.config.attention import ATTENTION, PlacedAttentionConfig
from ablations.config.compose import compose_config
from ablations.config.data import DATA, DataConfig, ImageTreeConfig, StoredConfig
from ablations.config.groups import default_choices, group_choices
from ablations.config.launcher import LAUNCHERS
from ablations.config.measure import MEASURE, MeasureConfig
from ablations.config.option import SHOWN_NAMES
from ablations.config.schema import Config
from sa_core.attentions.knobs import NORMS

FILE = Path(__file__).parents[1] / "ablations" / "OPTIONS.md"
# Options common to several data sets, by the title of their table.
_DATA = {"all": DataConfig, "file-based data sets": StoredConfig, "image folders": ImageTreeConfig}
# Values of options that no declaration limits to a list or a range.
_OPEN = {
    "attention.norm": ", ".join(f"`{norm}`" for norm in NORMS),
    "attention.stages": "`all`, `first`, `last`, or numbers such as `2+3`",
    "bench.also": "list of `MODULE:CLASS`",
    "data.classes": "integer >= 0, list of folder names, or file",
    "figures": "`all` or list of names",
    "recipes": "list of names",
    "reuse": "list of studies",
}
# Default choices of single commands.
_COMMAND_DEFAULTS = {"sweep": "; for `bench`: `rivals`"}
# Texts above the tables of groups.
_ABOUT = {
    "sweep": "`sweep=NAME` sets these options; the defaults apply to those that its file does not set.",
    "bench": "The defaults are those of `bench=standard`.",
}
_HEAD = "| option | default | values | meaning |\n| --- | --- | --- | --- |"


def document() -> str:
    """Returns the content of the file in Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Options"
    yield ""
    yield "Every option of the command line, generated from its declaration by `python -m tests.option_tables`."
    yield "`python -m ablations.run --help` shows the same with the current values, for any choice of groups."
    yield ""
    yield "A group is chosen by its name, such as `data=cifar10`; options are set as `option=value`, in"
    yield "[Hydra's override grammar](https://hydra.cc/docs/advanced/override_grammar/basic/)."
    yield ""
    yield "| group | default | choices |\n| --- | --- | --- |"
    defaults = default_choices()
    for group, choices in group_choices().items():
        named = [*choices, "timm/<name>"] if group == "model" else choices
        default = f"`{defaults[group]}`{_COMMAND_DEFAULTS.get(group, '')}"
        yield f"| `{group}=` | {default} | {', '.join(f'`{choice}`' for choice in named)} |"
    hints = get_type_hints(Config)
    yield from _section("Study", [entry for entry in fields(Config) if not is_dataclass(hints[entry.name])], "", Config)
    for group in fields(Config):
        schema = hints[group.name]
        if not is_dataclass(schema):
            continue
        if group.name == "data":
            yield from _by_choice("data", DATA, _DATA)
        elif group.name == "attention":
            yield from _by_choice("attention", ATTENTION, {"every module except none": PlacedAttentionConfig})
        elif group.name == "launcher":
            yield from _by_choice("launcher", LAUNCHERS, {})
        elif group.name == "measure":
            yield from _section("measure", list(fields(MeasureConfig)), "measure.", MeasureConfig)
            yield ""
            yield from (f"`measure={name}`: {_first_line(schema)}  " for name, schema in MEASURE.items())
        else:
            preset = getattr(compose_config([]), group.name) if group.name == "bench" else None
            yield from _section(
                group.name, list(fields(schema)), f"{group.name}.", schema, _ABOUT.get(group.name, ""), preset
            )
        if group.name == "train":
            recipes = {name: compose_config([f"train={name}"]).train for name in group_choices()["train"]}
            yield from _presets("recipe", "train", recipes)
        elif group.name == "bench":
            presets = {name: compose_config([f"bench={name}"]).bench for name in group_choices()["bench"]}
            yield ""
            yield "The choices of `bench=` set:"
            yield from _presets("choice", "bench", presets)


def _by_choice(group: str, choices: Mapping[str, type], shared: Mapping[str, type]) -> Iterator[str]:
    """Yields the tables of options common to several choices of a group, then those that each adds or changes."""
    known: dict[str, Field[Any]] = {}
    for title, schema in shared.items():
        new = [entry for entry in fields(schema) if entry.name not in known]
        yield from _section(f"{group}: {title}", new, f"{group}.", schema)
        known |= {entry.name: entry for entry in new}
    earlier: dict[tuple[str, ...], str] = {}
    for name, schema in choices.items():
        parents = [parent for parent in shared.values() if issubclass(schema, parent) and parent is not schema]
        inherited = {entry.name: entry for parent in parents for entry in fields(parent)}
        own = [] if schema in shared.values() else [e for e in fields(schema) if not _same(e, inherited.get(e.name))]
        section = list(_section(f"{group}={name}", own, f"{group}.", schema, about=_first_line(schema)))
        rows = tuple(section[1:])
        if len(rows) > 2 and rows in earlier:
            yield from (section[0], f"The options of `{group}={earlier[rows]}`.")
        else:
            earlier[rows] = name
            yield from section


def _same(entry: Field[Any], inherited: Field[Any] | None) -> bool:
    return inherited is not None and (entry.default, entry.metadata) == (inherited.default, inherited.metadata)


def _first_line(schema: type) -> str:
    text = (schema.__doc__ or "").strip().partition("\n")[0]
    return "" if text.startswith(f"{schema.__name__}(") else text  # the default docstring of dataclasses


def _section(
    title: str, entries: list[Field[Any]], prefix: str, schema: type, about: str = "", preset: object = None
) -> Iterator[str]:
    """Yields a table of options; defaults are those of `preset`, or else of the declarations."""
    shown = [entry for entry in entries if entry.metadata.get("help") and entry.name != "name"]
    rows = [_row(entry, prefix, schema, preset) for entry in shown]
    if rows or about:
        yield f"\n## {title}\n"
        if about:
            yield about
            yield ""
    if rows:
        yield _HEAD
        yield from rows


def _row(entry: Field[Any], prefix: str, schema: type, preset: object = None) -> str:
    if preset is not None:
        default = getattr(preset, entry.name)
    else:
        default = entry.default_factory() if entry.default is MISSING else entry.default
    shown = default if isinstance(default, str) else json.dumps(default)
    verbs = entry.metadata.get("verbs")
    text = entry.metadata["help"] + (f" (Commands: {', '.join(f'`{verb}`' for verb in verbs)}.)" if verbs else "")
    cells = (
        f"`{prefix}{SHOWN_NAMES.get(entry.name, entry.name)}`",
        f"`{shown}`" if shown else "",
        _OPEN.get(f"{prefix}{entry.name}", "") or _values(entry, schema),
    )
    return f"| {' | '.join(cells)} | {_escaped(text)} |"


def _values(entry: Field[Any], schema: type) -> str:
    """The values of an option: its choices, or its type and range."""
    declared = entry.metadata
    words = [f"`{word}`" for word in declared.get("words") or ()]
    if choices := declared.get("choices"):
        return ", ".join(f"`{choice}`" for choice in choices)
    hint = str(get_type_hints(schema)[entry.name])
    if "bool" in hint:
        return "`true`, `false`"
    kind = "integer" if "int" in hint and "float" not in hint else "number" if "float" in hint else ""
    return ", or ".join(part for part in (f"{kind}{_range(declared)}", *words) if part)


def _range(declared: Mapping[str, Any]) -> str:
    low, above, high = declared.get("minimum"), declared.get("above"), declared.get("maximum")
    if low is not None and high is not None:
        return f" from {low:g} to {_count(high)}"
    lower = f">= {low:g}" if low is not None else f"> {above:g}" if above is not None else ""
    bounds = [bound for bound in (lower, f"<= {_count(high)}" if high is not None else "") if bound]
    return f" {' and '.join(bounds)}" if bounds else ""


def _count(number: float) -> str:
    if number == 2**63 - 1:
        return "2^63 - 1"
    return f"{number:,}" if isinstance(number, int) and number < 10**12 else f"{number:g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _presets(title: str, group: str, presets: Mapping[str, Any]) -> Iterator[str]:
    """Yields the choices of a group with all options that differ from their defaults in any of them."""
    default = type(next(iter(presets.values())))()
    changed = [
        entry.name
        for entry in fields(default)
        if any(getattr(preset, entry.name) != getattr(default, entry.name) for preset in presets.values())
    ]
    yield ""
    yield f"| {title} | {' | '.join(f'`{name}`' for name in changed)} |"
    yield f"| --- |{' --- |' * len(changed)}"
    for name, preset in presets.items():
        yield f"| `{group}={name}` | {' | '.join(_shown(getattr(preset, option)) for option in changed)} |"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    write_whole(FILE, document())
    print(f"Written: {FILE}")
