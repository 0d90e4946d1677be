"""The environment of a process: settings meant for other programs, and what is missing, must not break the suite.

`prepare_verb` is for processes that run a verb and nothing else. The other public functions change nothing that a
program which imports the suite could notice, and are called where the library that reads the variable is used.
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
    """Prepares a process that runs a verb; it may be replaced by one in Python's UTF-8 mode."""
    _open_closed_streams()
    _use_utf8()
    print_replacements()
    _forgive_warnings()
    _name_user()
    # Figures have a style of their own (`reporting.figures.style`). An unknown backend, or a matplotlibrc that is not
    # UTF-8, stops the import of matplotlib.
    os.environ["MPLBACKEND"] = "agg"
    os.environ["MATPLOTLIBRC"] = os.devnull


def print_replacements() -> None:
    """Prints characters that the terminal's encoding lacks as question marks, where printing them would fail."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def bypass_proxies() -> None:
    """Exempts servers on this machine from the proxies that the environment names."""
    if not any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in os.environ):
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" not in hosts:
        exempt = ",".join(dict.fromkeys([*hosts, *_LOOPBACK]))
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = exempt


def _open_closed_streams() -> None:
    """Opens the null device in the place of standard streams that are closed.

    Otherwise the next file to be opened, such as a database, gets the descriptor that other programs print to.
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
    """Starts this program again in UTF-8 mode where the locale has another encoding (PEP 540).

    Libraries open files, and Python decodes paths and the command line, in the locale's encoding. What is printed stays
    in it, as the terminal expects it.
    """
    encodings = {sys.getfilesystemencoding().lower(), locale.getencoding().lower()}
    if sys.flags.utf8_mode or encodings == {"utf-8"}:
        return
    environment = os.environ | {"PYTHONUTF8": "1"}
    environment.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def _forgive_warnings() -> None:
    """Withdraws what turns warnings into errors, as PYTHONWARNINGS=error does: libraries warn each other."""
    if any(option.startswith("error") for option in sys.warnoptions):
        sys.warnoptions[:] = [option for option in sys.warnoptions if not option.startswith("error")]
        os.environ.pop("PYTHONWARNINGS", None)  # read by processes that are started from here
        warnings.filters = [entry for entry in warnings.filters if entry[0] != "error"]
        warnings.simplefilter("default", append=True)


def _name_user() -> None:
    """Gives a user without an account a name, as containers do not; libraries ask `getpass.getuser` for one."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):  # KeyError before Python 3.13
        os.environ["USER"] = f"uid{os.getuid()}"
