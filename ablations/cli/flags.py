"""The flags of all verbs, with Hydra's names and meanings; every other word is an override."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass

from ablations.common.errors import UsageError

CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "searchpath")
# Help texts by the flag's names and its value.
FLAGS = {
    "--help, -h": "Show this help.",
    "--version": "Show the version.",
    "--cfg, -c job|hydra|all": "Show the configuration instead of running.",
    "--resolve": "With --cfg job: resolve interpolations.",
    "--package, -p NAME": "With --cfg: show this part only, such as train.",
    f"--info, -i [{'|'.join(INFO)}]": "Show how the configuration is composed.",
    "--multirun, -m": "Run one study per combination of comma-separated values: model=resnet20,resnet56.",
    "--config-dir, -cd DIR": "Folder with config files of your own, such as DIR/sweep/mine.yaml.",
    "--shell-completion, -sc ACTION=SHELL": "ACTION: install, uninstall or query; SHELL: bash, fish or zsh.",
}
NAMES = tuple(flag.partition(",")[0].partition(" ")[0] for flag in FLAGS)


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line: the overrides in their order, and the flags."""

    overrides: list[str]
    help: bool
    version: bool
    cfg: str | None
    resolve: bool
    package: str | None
    info: str | None
    multirun: bool
    config_dir: str | None
    shell_completion: bool


def read_flags(typed: Sequence[str]) -> CommandLine:
    """Separates flags from overrides.

    Raises:
        UsageError: for an unknown flag, or one without its value or with an invalid one.
    """
    try:
        flags, overrides = _parser().parse_known_args(typed)
    except ArgumentError as error:
        raise _refusal(error, typed) from None
    values = vars(flags)
    if values["info"] not in (None, *INFO) and "=" in values["info"]:  # --info sweep=groups
        overrides.insert(0, values["info"])
        values["info"] = INFO[0]
    for flag, choices in (("cfg", CFG), ("info", INFO)):
        if values[flag] not in (None, *choices):
            raise UsageError(_as_typed((f"--{flag}", f"-{flag[0]}"), typed), values[flag], "unknown value", choices)
    if flags.config_dir == "":
        raise UsageError(_as_typed(("--config-dir", "-cd"), typed), None, "requires a folder")
    for flag in ("resolve", "package"):
        if values[flag] and not flags.cfg:
            raise UsageError(f"--{flag}", None, "requires --cfg")
    for word in overrides:
        if word.startswith("-"):
            raise UsageError(word.partition("=")[0], None, "unknown flag", NAMES)
    return CommandLine(overrides, **values)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--cfg", "-c")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    parser.add_argument("--info", "-i", nargs="?", const=INFO[0])
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    return parser


def _as_typed(names: Sequence[str], typed: Sequence[str]) -> str:
    """Returns the name of a flag that was typed, or else its first name."""
    return next((name for word in typed if (name := word.partition("=")[0]) in names), names[0])


def _refusal(error: ArgumentError, typed: Sequence[str]) -> UsageError:
    names = (error.argument_name or "").split("/")
    flag = _as_typed(names, typed)
    _, equals, value = next((word for word in typed if word.partition("=")[0] == flag), flag).partition("=")
    if equals:
        return UsageError(flag, value, "takes no value")
    needs = {"--config-dir": "requires a folder", "--cfg": f"needs a value: {', '.join(CFG)}"}
    return UsageError(flag, None, needs.get(names[0], "needs a value"))
