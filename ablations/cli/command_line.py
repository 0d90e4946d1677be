"""The command line that all verbs share: Hydra overrides, flags, and errors in one message."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.common.errors import SuiteError, UsageError, shown
from ablations.common.surroundings import BROKEN_PIPE_STATUS, prepare_verb
from ablations.common.urls import hide_passwords

if TYPE_CHECKING:  # whatever takes time is imported where Ctrl-C is answered
    from ablations.config import Config
    from ablations.config.multiverse import Multiverse

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells have it
_DISTRIBUTION = "shuffle-attention-ablations"
_PACKAGES = ("ablations", "sa_core")
# Of a disk that is full, may not be written, or is failing; of a folder that is mounted no more; of limits on files.
_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENOENT, errno.ENOTDIR, errno.ENOLCK, errno.EMFILE, errno.ENFILE,
)  # fmt: skip
_FLAGS = ("--help", "--config-dir", "--version")


def main(
    verb: str,
    purpose: str,
    act: Callable[[Config, str], int] | None = None,
    arguments: Sequence[str] | None = None,
    defaults: Sequence[str] = (),
    act_on_several: Callable[[Multiverse], int] | None = None,
    act_on_stored: Callable[[Sequence[str], str], int] | None = None,
) -> int:
    """Runs a verb and returns its exit status; what the user can mend is one message and status 2.

    `purpose` is what the verb does, in a sentence, for the help; `act` does it, and gets the configuration and the
    command that was typed. `arguments` are by default this process's; `defaults` are overrides that others replace.
    `act_on_several` does it for the studies of several protocols (`recipes`), of a verb that has that option;
    `act_on_stored` does all of it for a verb that takes names of stored studies beside few options, and gets the words.
    """
    if arguments is None:
        prepare_verb()
    typed = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> int:
        _check_current_folder()
        _check_encoding(typed)
        overrides, config_dir, flags = _read(typed)
        if "--version" in flags:
            print(version(), flush=True)
            return 0
        if "--help" in flags:
            from ablations.cli.help import help_text

            print(help_text(verb, purpose, [*defaults, *overrides], config_dir), flush=True)
            return 0
        from ablations.config.compose import compose_config
        from ablations.config.multiverse import compose_multiverse, without_recipes

        _check_owners(verb, overrides)
        if act_on_stored is not None:
            return act_on_stored(overrides, _command(verb, typed))
        if act_on_several is not None:
            folder = [] if config_dir is None else ["--config-dir", config_dir]
            several = compose_multiverse(overrides, config_dir, lambda words: _command(verb, [*folder, *words]))
            if several is not None:
                return act_on_several(several)
            overrides = without_recipes(overrides)
        assert act is not None
        return act(compose_config([*defaults, *overrides], config_dir), _command(verb, typed))

    return exit_status(run)


def exit_status(run: Callable[[], int]) -> int:
    """Returns what `run` returns, or the exit status of what it raises, after a message; a defect is raised on."""
    try:
        return run()
    except SuiteError as error:
        print(f"error: {hide_passwords(str(error))}", file=sys.stderr)
        return USAGE_STATUS
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *_PACKAGES):
            raise
        print(
            f"error: the Python package {package} is not installed; pip install '{_DISTRIBUTION}[suite]' installs what "
            "the suite needs",
            file=sys.stderr,
        )
        return USAGE_STATUS
    except BrokenPipeError:
        # Whoever read the output has gone, as `head` does; what Python still wants to write at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_STATUS
    except OSError as error:
        # Whoever knows which option is at fault says so before; no place that writes is left without a message.
        if error.errno not in _DISK_ERRORS:
            raise
        place = shown(str(error.filename or "output"))
        print(
            f"error: {place}: {error.strerror}; stored results are kept, and the same command resumes", file=sys.stderr
        )
        return USAGE_STATUS
    except KeyboardInterrupt:
        print("Interrupted; finished results are stored.", file=sys.stderr)
        return INTERRUPTED_STATUS


def version() -> str:
    """Returns the name and the version that is installed, as `--version` prints them."""
    from importlib import metadata

    return f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)}"


def _check_current_folder() -> None:
    """Checks that the current folder is there, which libraries ask for when they are imported."""
    try:
        Path.cwd()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); change to a folder that exists"
        raise UsageError("current folder", None, reason) from None


def _check_encoding(typed: Sequence[str]) -> None:
    """Checks that what was typed is text: databases and reports cannot hold anything else."""
    for argument in typed:
        try:
            argument.encode()
        except UnicodeEncodeError:
            name, _, value = argument.partition("=")
            reason = "is not valid UTF-8; rename the file or folder, or write the value in UTF-8"
            raise UsageError(name, value or None, reason) from None


def _check_owners(verb: str, overrides: Sequence[str]) -> None:
    """Checks that no override is of an option that other verbs have alone."""
    from ablations.config import OPTIONS_OF, OWNERS

    for text in overrides:
        name, is_option, value = text.partition("=")
        if verb in OPTIONS_OF and is_option and not Path(text).is_dir() and name.lstrip("+~") not in OPTIONS_OF[verb]:
            raise UsageError(name, value or None, f"is not an option of {verb}", OPTIONS_OF[verb])
        owners = OWNERS.get(name.lstrip("+").partition(".")[0], (verb,))
        if verb not in owners:
            *first, last = (f"`python -m ablations.{owner}`" for owner in owners)
            listed = f"{', '.join(first)} and {last}" if first else last
            reason = f"is an option of {listed}, not of {verb}"
            raise UsageError(name, value or None, reason)


def _read(typed: Sequence[str]) -> tuple[list[str], str | None, set[str]]:
    """Returns the overrides, the folder of `--config-dir`, and the other flags that were typed."""
    overrides: list[str] = []
    config_dir: str | None = None
    flags: set[str] = set()
    rest = iter(typed)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if argument in ("--help", "-h", "--version"):
            flags.add("--help" if argument == "-h" else argument)
        elif flag == "--config-dir":
            config_dir = value if equals else next(rest, None)
            if not config_dir:
                raise UsageError(flag, None, "requires a folder")
        elif flag.startswith("-"):
            raise UsageError(flag, None, "unknown flag", _FLAGS)
        else:
            overrides.append(argument)
    return overrides, config_dir, flags


def _command(verb: str, typed: list[str]) -> str:
    """Returns what was typed, fit for reports and the dashboard."""
    return hide_passwords(shlex.join(["python", "-m", f"ablations.{verb}", *typed]))
