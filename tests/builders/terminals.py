"""Processes in terminals: those of pexpect, which have a width, and a real tmux."""

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
    """Returns the environment of a process in a terminal, which says its size itself."""
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    return kept | {"TERM": "xterm-256color"} | changes


def spawn(
    program: Sequence[str], columns: int = 80, cwd: Path | None = None, *, echo: bool = False, **changes: str
) -> pexpect.spawn[str]:
    """Starts a program in a terminal, which repeats what is typed if `echo`; `changes` are of its environment."""
    first, *others = program
    return pexpect.spawn(
        first, others, timeout=PATIENCE, cwd=cwd, env=environment(**changes), echo=echo, encoding="utf-8",
        dimensions=(40, columns),
    )  # fmt: skip


def in_tmux(program: Sequence[str], columns: int, folder: Path) -> list[str]:
    """Runs a program in a window of a tmux server of its own; returns what is on the screen, and was above it.

    The last line is the exit status. The server's socket is made in `folder`.
    """
    tmux = ["tmux", "-f", os.devnull, "-S", str(folder / "socket")]
    command = f"{shlex.join(program)}; echo status $?; sleep {PATIENCE}"
    start = ["new-session", "-d", "-x", str(columns), "-y", "40", command]
    subprocess.run([*tmux, "set-option", "-g", "history-limit", "9999", ";", *start], check=True, env=environment())
    try:
        for _ in range(5 * PATIENCE):
            taken = subprocess.run([*tmux, "capture-pane", "-p", "-S", "-"], check=True, capture_output=True, text=True)
            lines = taken.stdout.rstrip().splitlines()
            if lines and lines[-1].startswith("status "):
                return lines
            time.sleep(0.2)
        raise TimeoutError(f"{command} does not end:\n{taken.stdout}")
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
