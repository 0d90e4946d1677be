"""`--shell-completion`: completes groups, choices, options and values in bash, zsh and fish with Hydra's plugins.

Hydra's plugins write the shell functions, and complete a line with the answers of a `ConfigLoader`; the one here
describes the command line of the suite. The functions complete the console script `ablations`.
"""

# ruff: noqa: ARG002 (arguments of Hydra's interface)
from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.completion_plugin import CompletionPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ablations.cli.flags import NAMES, read_flags
from ablations.common.errors import SuiteError, UsageError
from ablations.config import OPTIONS_OF, OWNERS, SHOWN_NAMES
from ablations.config.compose import compose_config, compose_unresolved
from ablations.config.groups import GROUPS, group_choices
from ablations.config.multiverse import without_recipes
from ablations.config.option import options_of

_ACTIONS = ("install", "uninstall", "query")
_SCRIPT = "ablations"  # the console script


def complete(words: Sequence[str], verbs: Sequence[str]) -> None:
    """Prints a shell function (`install=bash`, `uninstall=bash`), or completions of a line (`query=bash`).

    Args:
        words: the arguments after `--shell-completion`: one action with the name of a shell.
        verbs: the suite's verbs. The line of a query is in the environment variable COMP_LINE.

    Raises:
        UsageError: if the action or shell is unknown.
    """
    action, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if action not in _ACTIONS:
        raise UsageError("--shell-completion", " ".join(words) or None, "must be ACTION=SHELL", _ACTIONS)
    discovered = Plugins.instance().discover(CompletionPlugin)
    plugins = {plugin.provides(): plugin for plugin in discovered if issubclass(plugin, CompletionPlugin)}
    if shell not in plugins:
        raise UsageError(action, shell or None, "is not a supported shell", sorted(plugins))
    if action == "query":
        _query(plugins[shell], os.environ.get("COMP_LINE", ""), verbs)
        return
    sys.argv[0] = _SCRIPT  # Hydra writes this name into the function
    plugin = plugins[shell](_Loader(verbs[0], None))
    if action == "install":
        plugin.install()
    else:
        plugin.uninstall()


def _query(plugin: type[CompletionPlugin], line: str, verbs: Sequence[str]) -> None:
    """Prints the completions of a line."""
    match = re.match(rf"\s*\S*\b{_SCRIPT}\s+({'|'.join(verbs)})\s(.*)", line)
    if match is None:
        print("\n".join(verb for verb in verbs if verb.startswith(line.rpartition(" ")[2])))
        return
    verb, typed = match.groups()
    last = typed.rpartition(" ")[2]
    if last.startswith("-"):
        print("\n".join(name for name in NAMES if name.startswith(last)))
        return
    try:
        line_before = read_flags(typed.split()[: None if typed.endswith(" ") else -1])
    except UsageError:
        return
    # Hydra's plugins read COMP_LINE, and do not know the suite's flags.
    os.environ["COMP_LINE"] = " ".join([_SCRIPT, *line_before.overrides, last])
    with suppress(AssertionError):  # Hydra's, for a name below an option that has a value
        plugin(_Loader(verb, line_before.config_dir)).query(config_name=None)


class _Loader(ConfigLoader):
    """Describes a verb's command line to Hydra's plugins."""

    def __init__(self, verb: str, config_dir: str | None) -> None:
        self._verb, self._config_dir = verb, config_dir

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """Returns the choices of a group, the values of an option, or, for ObjectType.GROUP, all groups."""
        groups = [group for group in GROUPS if self._has(group)]
        if results_filter is ObjectType.GROUP:
            return [] if group_name else groups
        choices = group_choices(self._config_dir)
        return list(choices[group_name]) if group_name in groups else self._values(group_name, overrides or [])

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Returns the options with the overrides typed so far, by their names on the command line."""
        try:
            _, config = compose_unresolved(without_recipes(overrides), self._config_dir)
        except SuiteError:  # the line is not finished
            _, config = compose_unresolved([])
        values = OmegaConf.to_container(config)
        assert isinstance(values, dict)
        of_verb = {str(key): value for key, value in values.items() if self._has(str(key))}
        return OmegaConf.create({SHOWN_NAMES.get(key, key): value for key, value in of_verb.items()})

    def _has(self, name: str) -> bool:
        """Returns whether the verb has an option or group."""
        if self._verb in OPTIONS_OF:
            return name in OPTIONS_OF[self._verb]
        return self._verb in OWNERS.get(name, (self._verb,))

    def _values(self, name: str, overrides: Sequence[str]) -> list[str]:
        """Returns the declared values of an option; none if it accepts any value."""
        try:
            config = compose_config(without_recipes(overrides), self._config_dir)
        except SuiteError:
            config = compose_config([])
        for option, value, declared in options_of(config):
            if option == name:
                return ["true", "false"] if isinstance(value, bool) else list(declared.get("choices") or ())
        return []

    def _not_needed(self, *_: object, **__: object) -> Any:
        raise NotImplementedError

    load_sweep_config = get_search_path = get_sources = list_groups = compute_defaults_list = _not_needed
