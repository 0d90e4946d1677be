"""Verbs in unusual environments: locales, containers, settings for other programs, limits of the machine."""

from __future__ import annotations

import ast
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
import pytest

from ablations import cli
from ablations.run import PURPOSE
from ablations.run import run as act
from tests.builders.trees import make_tree
from tests.conftest import ROOT, TINY
from tests.wording import refusal

pytestmark = pytest.mark.usefixtures("_drawn")
STUDY = "groups-digits-resnet8"
SMALL = (*TINY, "train.epochs=1", "replicates=1", "device=cpu", "weights=off", "tracking.enabled=false")

# Settings for other programs, all at once, which must not affect the suite.
ODD = {
    "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "xx_YY.NOTHING",
    "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "7",
    "MPLBACKEND": "nonsense", "MATPLOTLIBRC": "/proc/version",
    "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "nonsense", "COLUMNS": "0", "LINES": "0",
    "OMP_NUM_THREADS": "many", "CUDA_VISIBLE_DEVICES": "", "XDG_CACHE_HOME": "relative", "GIT_DIR": "/nowhere",
    "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9",
}  # fmt: skip


def run(
    verb: str, *arguments: str, environment: Mapping[str, str], cwd: Path | None = None, around: Sequence[str] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Runs a verb, by the command `around`, with these environment variables and no others."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    typed = [*around, sys.executable, "-m", f"ablations.{verb}", *arguments]
    return subprocess.run(typed, capture_output=True, check=False, env=kept | environment, cwd=cwd, timeout=120)


def unknown_user() -> list[str]:
    """Returns a command prefix for a user without an account; empty if user namespaces are not available."""
    prefix = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    is_allowed = (
        shutil.which("unshare") and not subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode
    )
    return prefix if is_allowed else []


def top1_of(folder: Path) -> dict[str, float]:
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'optuna.db'}")
    return {trial.user_attrs["cell"]: trial.value for trial in study.trials}


def test_in_an_unusual_environment_a_study_has_the_same_results_and_files(tmp_path: Path) -> None:
    question = "sweep.question=Größe × 2?"
    assert cli.main("run", PURPOSE, act, [*SMALL, question, f"results_dir={tmp_path / 'plain'}"]) == 0
    odd = run("run", *SMALL, question, "results_dir=Ödd", environment=ODD, cwd=tmp_path, around=unknown_user())
    assert odd.returncode == 0, odd.stderr
    assert b"Traceback" not in odd.stderr
    assert "Gr??e ? 2?" in odd.stdout.decode("ascii")
    assert "\x1b" not in odd.stdout.decode("ascii")
    assert top1_of(tmp_path / "Ödd") == top1_of(tmp_path / "plain")
    files = {path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*") if path.is_file()}
    for path in files:
        assert (tmp_path / "Ödd" / path).is_file()
        if path.suffix in (".png", ".pdf", ".csv") and path.stem != "time":  # training time differs
            assert (tmp_path / "Ödd" / path).read_bytes() == (tmp_path / "plain" / path).read_bytes(), path
    assert "Größe × 2?" in (tmp_path / "Ödd" / STUDY / "report.md").read_text(encoding="utf-8")


def test_without_a_home_folder_data_cache_is_required(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    options = ["data=imagenet_subset", f"data.root={tmp_path / 'tree'}", "tracking.enabled=false", "device=cpu"]
    if not (around := unknown_user()):
        pytest.skip("needs user namespaces")
    done = run("run", *options, "results_dir=r", environment={"LC_ALL": "C.UTF-8"}, cwd=tmp_path, around=around)
    message = done.stderr.decode()
    assert (done.returncode, message.count("\n")) == (2, 1), message
    assert re.match("error: " + refusal("data.cache=~/.cache", "paths.no_home", name="~"), message)


@pytest.mark.parametrize("option", ["results_dir", "data.root", "data.cache", "data.classes"])
def test_an_unknown_home_folder_is_one_message(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path / "tree")
    options = {"data.root": str(tmp_path / "tree"), "data.cache": str(tmp_path), "results_dir": str(tmp_path)}
    options[option] = "~nobody-of-this-name/folder"
    typed = ["data=imagenet_subset", "tracking.enabled=false", "device=cpu", "launcher=serial"]
    assert cli.main("run", PURPOSE, act, [*typed, *(f"{name}={value}" for name, value in options.items())]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    expected = refusal(f"{option}=~nobody-of-this-name/folder", "paths.no_home", name="~nobody-of-this-name")
    assert re.match("error: " + expected, message)


def test_a_removed_current_folder_is_one_message(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    removed = ["bash", "-c", 'rmdir "$PWD"; exec "$@"', "bash"]
    done = run("run", "--version", environment={}, cwd=folder, around=removed)
    expected = "error: " + refusal("current folder", "paths.unreadable", cause="No such file or directory")
    assert done.returncode == 2
    assert re.match(expected, done.stderr.decode())


def test_bytes_that_are_not_utf8_are_one_message() -> None:
    name = os.fsdecode(b"caf\xe9")
    done = run("run", f"study={name}", environment={"LC_ALL": "C.UTF-8"})
    assert done.returncode == 2
    assert re.match("error: " + refusal(r"study=caf\udce9", "cli.no_utf8"), done.stderr.decode())


@pytest.mark.parametrize("columns", [0, 1, 20, 59])
def test_in_a_narrow_terminal_output_is_plain(columns: int) -> None:
    script = "from ablations.common.console import make_console; c = make_console(); print(c.width, c.is_terminal)"
    assert in_terminal(script, columns) == "150 False"
    assert in_terminal(script, 132) == "132 True"


def in_terminal(script: str, columns: int) -> str:
    """Runs a script in a terminal; returns its output."""
    driver, terminal = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", script], stdout=terminal, check=True, env=environment)
    os.close(terminal)
    printed = os.read(driver, 1000).decode().strip()
    os.close(driver)
    return printed


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_verb_works_with_closed_standard_streams(closed: str) -> None:
    around = ["bash", "-c", f'"$@" {closed}', "bash"]
    done = run("run", "--help", environment={}, around=around)
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert run("run", "train.epochs=none", environment={}, around=around).returncode == 2


# --- rules for the source code


def calls() -> Iterator[tuple[str, ast.Call]]:
    for package in ("ablations", "sa_core"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_text_file_is_opened_with_its_encoding() -> None:
    wrong = []
    for place, call in calls():
        name = ast.unparse(call.func).rpartition(".")[2]
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        words = [ast.unparse(argument) for argument in call.args]
        opens = name in ("open", "fdopen") and ast.unparse(call.func) not in ("os.open", "Image.open")
        is_binary = any(re.fullmatch(r"'[rwxa+]*b[rwxa+]*'", word) for word in words)
        decodes = keywords.get("text") == "True" or keywords.get("universal_newlines") == "True"
        if (name in ("read_text", "write_text") or (opens and not is_binary) or decodes) and "encoding" not in keywords:
            wrong.append(f"{place}: {ast.unparse(call)}")
    assert wrong == []


def test_durations_are_measured_with_a_monotonic_clock() -> None:
    wrong = []
    for package in ("ablations", "sa_core"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
                    text = ast.unparse(node)
                    wrong += [f"{path.name}: {text}"] if "time.time(" in text or ".now(" in text else []
    assert wrong == []
