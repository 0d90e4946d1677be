"""The command line that all verbs share."""

from ablations.cli.command_line import INTERRUPTED_STATUS, USAGE_STATUS, VERBS, exit_status, main, version
from ablations.common.surroundings import BROKEN_PIPE_STATUS

__all__ = ["BROKEN_PIPE_STATUS", "INTERRUPTED_STATUS", "USAGE_STATUS", "VERBS", "exit_status", "main", "version"]
