"""The environment of a process: missing settings, and those for other programs, must not break the suite.

`prepare_verb` is for processes that only run a verb. The other public functions are safe in programs that import the
suite, and are called where the library that reads the variable is used.
"""

from __future__ import annotations

import getpass
import io
import locale
import os
import sys
import warnings

BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def prepare_verb() -> None:
    """Prepares a process that runs a verb; may restart it in Python's UTF-8 mode."""
    _open_closed_streams()
    _use_utf8()
    print_replacements()
    _forgive_warnings()
    _name_user()
    # Figures do not depend on matplotlibrc (see `reporting.figures.style`). An unknown backend, or a matplotlibrc that
    # is not UTF-8, would make the import of matplotlib fail.
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull


def print_replacements() -> None:
    """Makes standard output print question marks for characters that its encoding lacks, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def bypass_proxies() -> None:
    """Exempts servers on this machine from the proxies in the environment."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        return
    exempted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in exempted.split(",") if host.strip()]
    if "*" not in hosts:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*hosts, *_LOOPBACK]))


def _open_closed_streams() -> None:
    """Opens the null device in place of closed standard streams.

    Otherwise the next opened file, such as a database, gets the descriptor that subprocesses print to.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _use_utf8() -> None:
    """Restarts this program in UTF-8 mode if the locale has another encoding (PEP 540).

    Libraries open files, and Python decodes paths and the command line, in the locale's encoding. Output stays in it,
    as the terminal expects.
    """
    encodings = {sys.getfilesystemencoding().lower(), locale.getencoding().lower()}
    if sys.flags.utf8_mode or encodings == {"utf-8"}:
        return
    environment = os.environ | {"PYTHONUTF8": "1"}
    environment.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def _forgive_warnings() -> None:
    """Removes filters that turn warnings into errors, such as PYTHONWARNINGS=error: they would break libraries."""
    if any(option.startswith("error") for option in sys.warnoptions):
        sys.warnoptions[:] = [option for option in sys.warnoptions if not option.startswith("error")]
        os.environ.pop("PYTHONWARNINGS", None)  # child processes read it
        warnings.filters = [entry for entry in warnings.filters if entry[0] != "error"]
        warnings.simplefilter("default", append=True)


def _name_user() -> None:
    """Sets USER for a user without an account, as in containers, because libraries call `getpass.getuser`."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError before Python 3.13
        os.environ["USER"] = f"uid{os.getuid()}"
