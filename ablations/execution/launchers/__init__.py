"""Creates the configured launcher, after checking its requirements."""

from __future__ import annotations

import os
import re
import socket
from importlib.util import find_spec

from rich.console import Console

from ablations.common.errors import UsageError
from ablations.common.resolve import resolve_threads
from ablations.common.surroundings import bypass_proxies
from ablations.config import Config, LauncherConfig, LocalConfig, RayConfig
from ablations.design import Design
from ablations.execution.launchers.base import Launcher
from ablations.execution.launchers.local import LocalLauncher
from ablations.execution.launchers.serial import SerialLauncher

_ANY_CLUSTER = "auto"
_PATIENCE = 10.0  # seconds


def check_launcher(config: LauncherConfig) -> None:
    """Checks the requirements of a launcher.

    Raises:
        UsageError: if its package is not installed, or its address refuses connections.
    """
    if not isinstance(config, RayConfig):
        return
    if find_spec("ray") is None:
        reason = "requires the Python package ray, which is not installed; install it with pip install -e '.[ray]'"
        raise UsageError("launcher", "ray", reason)
    if config.address in ("", _ANY_CLUSTER):
        return
    host, _, port = config.address.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host) or not port.isdecimal() or int(port) > 65_535:
        reason = f"must be a cluster address such as 10.0.0.1:6379, or {_ANY_CLUSTER} for the cluster of this machine"
        raise UsageError("launcher.address", config.address, reason)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError as error:  # Ray itself would need minutes to report this
        reason = f"connection refused or timed out ({error.strerror or error}); start a cluster with `ray start --head`"
        raise UsageError("launcher.address", config.address, reason) from None


def make_launcher(config: Config, design: Design, console: Console) -> Launcher:
    """Creates the configured launcher, whose package must be installed."""
    threads = resolve_threads(config.threads, design.protocol["device"], config.data.side)
    common = (design, config.data, console, threads)
    if isinstance(config.launcher, LocalConfig):
        return LocalLauncher(*common, config.launcher)
    if not isinstance(config.launcher, RayConfig):
        return SerialLauncher(*common)
    bypass_proxies()  # gRPC would send Ray's own traffic through the proxies
    if not config.launcher.address:
        # Ray reads this at import: an instance started here listens on the loopback interface only.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from ablations.execution.launchers.ray import RayLauncher

    return RayLauncher(*common, config.launcher)
