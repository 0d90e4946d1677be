"""Takes the shortcuts in processes that tests start; Python imports it at startup, see `tests.shortcuts`."""

import os

if {"ABLATIONS_TESTS_UNDRAWN", "ABLATIONS_TESTS_TABLES"} & os.environ.keys():
    from tests import shortcuts

    shortcuts.take()
