"""The command line that all verbs share: Hydra overrides, flags, and error messages."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.cli.flags import INFO, CommandLine, read_flags
from ablations.common.errors import SuiteError, UsageError, shown
from ablations.common.surroundings import BROKEN_PIPE_STATUS, prepare_verb
from ablations.common.urls import hide_passwords

if TYPE_CHECKING:  # slow modules are imported inside `exit_status`, which handles Ctrl-C
    from ablations.config import Config
    from ablations.config.multiverse import Multiverse

VERBS = ("plan", "run", "analyze", "compare", "bench", "claims")  # in the usual order of use
USAGE_STATUS = 2
INTERRUPTED_STATUS = 130  # 128 + SIGINT, as in shells
_DISTRIBUTION = "shuffle-attention-ablations"
_PACKAGES = ("ablations", "sa_core")
# A disk that is full, read-only or failing; a folder that is no longer mounted; limits on open files.
_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENOENT, errno.ENOTDIR, errno.ENOLCK, errno.EMFILE, errno.ENFILE,
)  # fmt: skip


def main(
    verb: str,
    purpose: str,
    act: Callable[[Config, str], int] | None = None,
    arguments: Sequence[str] | None = None,
    defaults: Sequence[str] = (),
    act_on_several: Callable[[Multiverse], int] | None = None,
    act_on_stored: Callable[[Sequence[str], str], int] | None = None,
) -> int:
    """Runs a verb and returns its exit status: 2, after one message, for errors that the user can correct.

    Args:
        purpose: a sentence about the verb, for the help.
        act: runs the verb, given the configuration and the command that makes its study.
        arguments: the command line; by default that of this process.
        defaults: overrides that precede those on the command line.
        act_on_several: runs a verb with the option `recipes` on the studies of several protocols.
        act_on_stored: runs a verb that takes names of stored studies and few options, given the words and the command.
    """
    if arguments is None:
        prepare_verb()
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(_Verb(verb, purpose, act, defaults, act_on_several, act_on_stored, typed).run)


@dataclass(frozen=True)
class _Verb:
    """A verb and its command line, `typed`; the other attributes are the arguments of `main`."""

    name: str
    purpose: str
    act: Callable[[Config, str], int] | None
    defaults: Sequence[str]
    act_on_several: Callable[[Multiverse], int] | None
    act_on_stored: Callable[[Sequence[str], str], int] | None
    typed: Sequence[str]

    def run(self) -> int:
        """Runs the command line; returns the exit status.

        Raises:
            SuiteError: if the command line is invalid or cannot be carried out.
        """
        _check_current_folder()
        _check_encoding(self.typed)
        line = read_flags(self.typed)
        if line.version:
            print(version(), flush=True)
            return 0
        if line.shell_completion:
            from ablations.cli.completion import complete

            complete(line.overrides, VERBS)
            return 0
        if line.help:
            from ablations.cli.help import help_text

            print(help_text(self.name, self.purpose, [*self.defaults, *line.overrides], line.config_dir), flush=True)
            return 0
        _check_owners(self.name, line.overrides)
        if self.act_on_stored is not None:
            for flag, value in (("--cfg", line.cfg), ("--info", line.info), ("--multirun", line.multirun)):
                if value:
                    raise UsageError(flag, None, f"is not available in {self.name}")
            return self.act_on_stored(line.overrides, self._command(line.overrides, line.config_dir))
        if line.cfg or line.info:
            print(self._inspected(line), flush=True)
            return 0
        if line.multirun:
            from ablations.cli.multirun import run_jobs
            from ablations.config.multirun import compose_jobs

            jobs = compose_jobs(line.overrides, line.config_dir, self.defaults)
            return run_jobs(jobs, lambda job: exit_status(lambda: self._run_study(job.overrides, line.config_dir)))
        return self._run_study(line.overrides, line.config_dir)

    def _inspected(self, line: CommandLine) -> str:
        from ablations.cli.inspect import composition_text, configuration_text

        overrides = [*self.defaults, *line.overrides]
        if line.cfg is None:
            return composition_text(self.name, overrides, line.config_dir, line.info or INFO[0])
        return configuration_text(self.name, overrides, line.config_dir, line.cfg, line.package, resolve=line.resolve)

    def _run_study(self, overrides: Sequence[str], config_dir: str | None) -> int:
        """Runs the verb on the study that overrides describe, or on those of several protocols."""
        from ablations.config.compose import compose_config
        from ablations.config.multiverse import compose_multiverse, without_recipes

        command = self._command(overrides, config_dir)
        if self.act_on_several is not None:
            several = compose_multiverse(overrides, config_dir, lambda words: self._command(words, config_dir))
            if several is not None:
                return self.act_on_several(several)
            overrides = without_recipes(overrides)
        assert self.act is not None
        return self.act(compose_config([*self.defaults, *overrides], config_dir), command)

    def _command(self, overrides: Sequence[str], config_dir: str | None) -> str:
        """Returns the command with these overrides, without passwords, for reports and the dashboard."""
        folder = [] if config_dir is None else ["--config-dir", config_dir]
        return hide_passwords(shlex.join(["python", "-m", f"ablations.{self.name}", *folder, *overrides]))


def exit_status(run: Callable[[], int]) -> int:
    """Returns what `run` returns, or prints a message and returns the status of its exception; defects are raised."""
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
        # The reader has closed the pipe, as `head` does; what Python flushes at exit is discarded.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_STATUS
    except OSError as error:
        # Code that knows which option is at fault raises a SuiteError; this is the message for all other writes.
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
    """Returns the name and version of the installed distribution, as `--version` prints them."""
    from importlib import metadata

    return f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)}"


def _check_current_folder() -> None:
    """Checks that the current folder exists: libraries read it when they are imported."""
    try:
        Path.cwd()
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); change to a folder that exists"
        raise UsageError("current folder", None, reason) from None


def _check_encoding(typed: Sequence[str]) -> None:
    """Checks that the command line is valid UTF-8: databases and reports cannot store anything else."""
    for argument in typed:
        try:
            argument.encode()
        except UnicodeEncodeError:
            name, _, value = argument.partition("=")
            reason = "is not valid UTF-8; rename the file or folder, or write the value in UTF-8"
            raise UsageError(name, value or None, reason) from None


def _check_owners(verb: str, overrides: Sequence[str]) -> None:
    """Checks that no override sets an option that only other verbs have."""
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
