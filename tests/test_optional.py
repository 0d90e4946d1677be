"""Tests marked `cuda` can be collected where the packages that they do without are not installed."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

COLLECT = """
import sys
from tests.optional import hide
hide()
import pytest
sys.exit(pytest.main(["-m", "cuda", "--collect-only", "-q", "-p", "no:cacheprovider"]))
"""


def test_tests_for_gpus_are_collected_without_the_packages_that_they_do_not_need() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], capture_output=True, text=True, check=False, cwd=ROOT, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    files = [path for folder in ("ablations", "sa_core") for path in (ROOT / "tests" / folder).rglob("test_*.py")]
    marked = {str(path.relative_to(ROOT)) for path in files if "pytest.mark.cuda" in path.read_text()}
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert len(marked) > 5
    assert collected == marked
    assert "needs the Python package mlflow, which is not installed" in done.stdout
