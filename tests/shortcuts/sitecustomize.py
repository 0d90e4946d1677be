"""Takes the shortcuts in processes that tests start; Python imports it at startup, see `tests.shortcuts`."""

from tests import shortcuts

shortcuts.take()
