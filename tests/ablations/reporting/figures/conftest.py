"""All tests of figures draw."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _each_drawn(_drawn: None) -> None: ...
