"""Processes in terminals: pseudo-terminals of pexpect, and a real tmux."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pexpect

PATIENCE = 300  # seconds


def environment(**changes: str) -> dict[str, str]:
    """Returns the environment of a process in a terminal, without variables that override the terminal's size."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return inherited | {"TERM": "xterm-256color"} | changes


def spawn(
    program: Sequence[str], columns: int = 80, cwd: Path | None = None, *, echo: bool = False, **changes: str
) -> pexpect.spawn[str]:
    """Starts a program in a pseudo-terminal with `changes` of the environment; `echo` repeats the input."""
    first, *arguments = program
    return pexpect.spawn(
        first, arguments, timeout=PATIENCE, cwd=cwd, env=environment(**changes), echo=echo, encoding="utf-8",
        dimensions=(40, columns),
    )  # fmt: skip


def in_tmux(program: Sequence[str], columns: int, folder: Path) -> list[str]:
    """Runs a program in a window of a separate tmux server; returns the lines of the screen and its history.

    The last line is the exit status. The socket of the server is in `folder`.
    """
    tmux = ["tmux", "-f", os.devnull, "-S", str(folder / "socket")]
    command = f"{shlex.join(program)}; echo status $?; sleep {PATIENCE}"
    start = ["new-session", "-d", "-x", str(columns), "-y", "40", command]
    subprocess.run([*tmux, "set-option", "-g", "history-limit", "9999", ";", *start], check=True, env=environment())
    try:
        for _ in range(5 * PATIENCE):
            screen = subprocess.run(
                [*tmux, "capture-pane", "-p", "-S", "-"], check=True, capture_output=True, text=True
            )
            lines = screen.stdout.rstrip().splitlines()
            if lines and lines[-1].startswith("status "):
                return lines
            time.sleep(0.2)
        raise TimeoutError(f"{command} does not end:\n{screen.stdout}")
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
