"""`python -m ablations` and the console script, as real processes."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ablations.__main__ import VERBS
from tests.builders.imports import HEAVY, imported_by
from tests.wording import refusal

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VALID = ", ".join(VERBS)
MODULE = (sys.executable, "-m", "ablations")
# Equivalent to the installed script, by its declaration in pyproject.toml.
SCRIPT = (
    sys.executable,
    "-c",
    "import sys; from importlib.metadata import EntryPoint; "
    f"sys.exit(EntryPoint('ablations', {PROJECT['scripts']['ablations']!r}, 'console_scripts').load()())",
)


def call(program: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
@pytest.mark.parametrize("program", [MODULE, SCRIPT])
def test_the_verbs_are_listed_with_their_purposes(program: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    done = call(program, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "usage: python -m ablations COMMAND [group=choice ...] [option=value ...]"
    listed = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :] if line[2] != " "]
    assert tuple(listed) == VERBS
    text = " ".join(done.stdout.split())
    for verb in VERBS:
        assert f" {verb} {import_module(f'ablations.{verb}').PURPOSE}" in text
    assert max(map(len, lines)) <= 120


def test_every_verb_of_the_package_is_listed() -> None:
    # A verb is a module of the package itself that calls `cli.main`.
    modules = {path.stem for path in (ROOT / "ablations").glob("*.py") if "cli.main(" in path.read_text()}
    assert set(VERBS) == modules


@pytest.mark.parametrize(
    "program", [MODULE, SCRIPT, (*MODULE, "run"), *((sys.executable, "-m", f"ablations.{verb}") for verb in VERBS)]
)
def test_the_version_is_that_of_the_project(program: tuple[str, ...]) -> None:
    done = call(program, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{PROJECT['name']} {PROJECT['version']}\n", "")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "rnu",
            refusal("rnu", "options.no_such", what="command", near="run", valid=VALID),
        ),
        (
            "analyse",
            refusal(
                "analyse",
                "options.no_such",
                what="command",
                near="analyze",
                valid=VALID,
            ),
        ),
        (
            "sweep=groups",
            refusal("sweep=groups", "options.no_such", what="command", valid=VALID),
        ),
        (
            "--hlep",
            refusal(
                "--hlep", "options.no_such", what="flag", near="--help", valid="--help, --version, --shell-completion"
            ),
        ),
    ],
)
@pytest.mark.parametrize("program", [MODULE, SCRIPT])
def test_an_unknown_verb_is_one_message_with_a_suggestion(program: tuple[str, ...], typed: str, message: str) -> None:
    done = call(program, typed, "train.epochs=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: {message}\n", done.stderr)


def test_help_and_messages_are_equal_with_and_without_the_list_of_verbs() -> None:
    for arguments in (("--help", "train.epochs=9"), ("train.epochs=none",), ("bench.seconds=1",)):
        through, directly = call(MODULE, "run", *arguments), call((*MODULE[:2], "ablations.run"), *arguments)
        assert (through.returncode, through.stdout, through.stderr) == (
            directly.returncode, directly.stdout, directly.stderr
        )  # fmt: skip


@pytest.mark.parametrize("program", [MODULE, SCRIPT])
def test_a_verb_records_a_command_that_reproduces_its_study(program: tuple[str, ...], tiny: list[str]) -> None:
    results = Path(tiny[-1].removeprefix("results_dir="))
    done = call(program, "plan", "sweep=groups", *tiny)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m ablations.plan sweep=groups " in (results / "groups-digits-resnet8" / "plan.md").read_text()


def test_a_study_can_be_run_through_the_list_of_verbs(tiny: list[str]) -> None:
    results = Path(tiny[-1].removeprefix("results_dir="))
    done = call(MODULE, "run", "sweep=groups", *tiny, "tracking.enabled=false", "figures=forest")
    assert done.returncode == 2
    assert re.search(refusal("figures=forest", "options.other_verb", owner="analyze", verb="run"), done.stderr)
    done = call(MODULE, "run", "sweep=groups", *tiny, "tracking.enabled=false")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m ablations.run sweep=groups " in (results / "groups-digits-resnet8" / "report.md").read_text()


def test_the_list_of_verbs_imports_no_slow_packages() -> None:
    assert not imported_by("ablations") & HEAVY


def test_the_console_script_can_be_loaded() -> None:
    assert callable(EntryPoint("ablations", PROJECT["scripts"]["ablations"], "console_scripts").load())


def test_the_package_is_marked_as_typed() -> None:
    assert (ROOT / "ablations" / "py.typed").is_file()
