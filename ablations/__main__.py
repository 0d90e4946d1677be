"""`python -m ablations` and the console script `ablations`: lists the verbs, or runs one of them."""

from __future__ import annotations

import runpy
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module

from ablations import cli
from ablations.common.errors import UsageError

VERBS = cli.VERBS
_FLAGS = ("--help", "--version", "--shell-completion")
_WIDTH, _INDENT = 118, 11


def main() -> int:
    """Runs this process's command line, and returns the exit status."""
    return cli.exit_status(lambda: _dispatch(sys.argv[1:]))


def _dispatch(typed: Sequence[str]) -> int:
    first = typed[0] if typed else "--help"
    if first in ("--help", "-h"):
        print("\n".join(_listing()), flush=True)
    elif first == "--version":
        print(cli.version(), flush=True)
    elif first in ("--shell-completion", "-sc"):
        from ablations.cli.completion import complete  # slow to import, and the list of verbs does not need it

        complete(typed[1:], VERBS)
    elif first in VERBS:
        # Exactly as `python -m ablations.<verb>`, also for the processes that the verb starts.
        sys.argv[1:] = typed[1:]
        runpy.run_module(f"ablations.{first}", run_name="__main__", alter_sys=True)
    elif first.startswith("-"):
        raise UsageError(first, None, "unknown flag", _FLAGS)
    else:
        raise UsageError(first, None, "unknown command", VERBS)
    return 0


def _listing() -> Iterator[str]:
    yield "usage: python -m ablations COMMAND [group=choice ...] [option=value ...]"
    yield "       python -m ablations COMMAND --help    show the options of a command"
    yield ""
    yield "Commands:"
    for verb in VERBS:
        purpose = import_module(f"ablations.{verb}").PURPOSE
        yield textwrap.fill(purpose, _WIDTH, initial_indent=f"  {verb:{_INDENT - 2}}", subsequent_indent=" " * _INDENT)


if __name__ == "__main__":
    sys.exit(main())
