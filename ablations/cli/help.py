"""The help text, made from the declarations of the options."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from ablations.config import OWNERS, SHOWN_NAMES
from ablations.config.compose import compose_config
from ablations.config.groups import GROUPS, default_choices, group_choices, sweep_questions
from sa_core.backbones.places import TIMM

_WIDTH = 118
_INDENT = 34


def help_text(verb: str, purpose: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Returns the help: what there is to choose, and every option with its value under the given overrides."""
    config = compose_config(overrides, config_dir)
    chosen = default_choices() | {
        group: getattr(config, group).name for group in ("sweep", "data", "model", "attention", "launcher")
    }
    groups = [group for group in GROUPS if group != "bench" or verb == "bench"]
    lines = [
        purpose,
        "",
        f"usage: python -m ablations.{verb} [group=choice ...] [option=value ...] [--config-dir DIR]",
        "",
        "Groups:",
    ]
    for group in groups:
        names = ", ".join(group_choices(config_dir)[group])
        if group == "model":
            names += f", {TIMM}<name> for a model of timm whose blocks take attn_layer"
        lines += _entry(f"{group}={chosen[group]}", f"one of: {names}")
    lines += ["", "Sweeps and the questions they answer:"]
    for name, question in sweep_questions(config_dir).items():
        lines += _entry(f"sweep={name}", question)
    lines += ["", "Options, with the values that they have now:"]
    for name, value, sentence in _options(config):
        if OWNERS.get(name.partition(".")[0], verb) == verb:
            lines += _entry(f"{name}={value}", sentence)
    lines += [
        "",
        "A sweep of your own:   sweep=groups study=mine sweep.factors.attention.groups=[2,4]",
        "or a file sweep/mine.yaml in a folder of yours, with --config-dir FOLDER sweep=mine.",
    ]
    return "\n".join(lines)


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for declared in fields(config):
        value = getattr(config, declared.name)
        if is_dataclass(value):
            yield from _options(value, f"{prefix}{declared.name}.")
        elif "help" in declared.metadata and not (prefix and declared.name == "name"):
            choices = declared.metadata.get("choices")
            sentence = declared.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
            yield prefix + SHOWN_NAMES.get(declared.name, declared.name), str(value).replace("'", ""), sentence


def _entry(name: str, text: str) -> list[str]:
    first = f"  {name}"
    above = [first] if len(first) >= _INDENT - 1 else []  # a long name has a line of its own
    start = "" if above else first
    return above + textwrap.wrap(text, _WIDTH, initial_indent=start.ljust(_INDENT), subsequent_indent=" " * _INDENT)
