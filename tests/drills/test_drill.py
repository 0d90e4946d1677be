"""A short drill: each part is killed once in one study. `python -m tests.drills.drill` is the long form."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.drills.drill import KINDS, drill


@pytest.mark.parametrize("launcher", list(KINDS))
def test_a_study_with_killed_processes_ends_with_the_undisturbed_results(tmp_path: Path, launcher: str) -> None:
    if launcher == "ray" and find_spec("ray") is None:
        pytest.skip("needs ray, which is not installed")
    messages: list[str] = []
    kills = drill(tmp_path, launcher, len(KINDS[launcher]), seed=0, say=messages.append)
    assert kills == dict.fromkeys(KINDS[launcher], 1), messages
