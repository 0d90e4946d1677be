"""The help text, generated from the declarations of the options."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from ablations.cli.flags import FLAGS
from ablations.config import OPTIONS_OF, OWNERS, Config
from ablations.config.compose import compose_config
from ablations.config.groups import GROUPS, default_choices, group_choices, sweep_questions
from ablations.config.multiverse import without_recipes
from ablations.config.option import options_of
from sa_core.backbones.insertion_points import TIMM

_WIDEST = 118  # columns; longer lines are hard to read
_INDENT = 34


def help_width() -> int:
    """Returns the width of a help text in columns: that of the terminal, at most 118; elsewhere 118."""
    return min(_WIDEST, max(2 * _INDENT, shutil.get_terminal_size((_WIDEST, 24)).columns))


def help_text(verb: str, purpose: str, overrides: Sequence[str], config_dir: str | None) -> str:
    """Returns the help: flags, groups with their choices, and all options with their values under the overrides."""
    if verb in OPTIONS_OF:
        overrides = [word for word in overrides if "=" in word]
    config = compose_config(without_recipes(overrides), config_dir)
    if verb in OPTIONS_OF:
        usage = f"usage: python -m ablations.{verb} STUDY STUDY ... [option=value ...]"
        named = "STUDY is the name of a study in results_dir, or the folder of one, with the database beside it."
        return "\n".join([purpose, "", usage, "", named, "", "Options:", *_options(config, OPTIONS_OF[verb])])
    chosen = default_choices() | {
        group: getattr(config, group).name for group in ("sweep", "data", "model", "attention", "measure", "launcher")
    }
    groups = [group for group in GROUPS if group != "bench" or verb == "bench"]
    lines = [
        purpose,
        "",
        f"usage: python -m ablations.{verb} [group=choice ...] [option=value ...] [flag ...]",
        "",
        "Flags:",
    ]
    for flag, meaning in FLAGS.items():
        lines += _entry(flag, meaning)
    lines += ["", "Groups:"]
    for group in groups:
        names = ", ".join(group_choices(config_dir)[group])
        if group == "model":
            names += f", {TIMM}<name> for a timm model whose blocks support attn_layer"
        lines += _entry(f"{group}={chosen[group]}", f"one of: {names}")
    lines += ["", "Sweeps (research questions):"]
    for name, question in sweep_questions(config_dir).items():
        lines += _entry(f"sweep={name}", question)
    lines += ["", "Options (current value shown):"]
    for name, value, declared in options_of(config):
        is_of_verb = verb in OWNERS.get(name.partition(".")[0], (verb,))
        if is_of_verb and "help" in declared and not name.endswith(".name"):
            choices = declared.get("choices")
            listing = f" One of: {', '.join(choices)}." if choices else ""
            lines += _entry(f"{name}={value}".replace("'", ""), declared["help"] + listing)
    lines += [
        "",
        "Custom sweeps:   sweep=groups study=mine sweep.factors.attention.groups=[2,4]",
        "or a file FOLDER/sweep/mine.yaml, selected with --config-dir FOLDER sweep=mine.",
    ]
    return "\n".join(lines)


def _options(config: Config, names: Sequence[str]) -> list[str]:
    entries = {name: (value, declared["help"]) for name, value, declared in options_of(config) if name in names}
    entries["study"] = ("", "Name of the comparison; made of the names of the studies if empty.")
    return [line for name in names for line in _entry(f"{name}={entries[name][0]}", entries[name][1])]


def _entry(name: str, text: str) -> list[str]:
    first = f"  {name}"
    above = [first] if len(first) >= _INDENT - 1 else []  # a long name gets a separate line
    start = "" if above else first
    return above + textwrap.wrap(
        text, help_width(), initial_indent=start.ljust(_INDENT), subsequent_indent=" " * _INDENT
    )
