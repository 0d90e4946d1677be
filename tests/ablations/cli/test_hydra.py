"""The command line compared with a real Hydra program with the same groups, schema and files; `--cfg` and `--info`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ablations import cli
from ablations.config.compose import compose_config
from tests.wording import refusal

# Composes each of the lines below with `hydra.main`; null if Hydra refuses it.
PROGRAM = """
import contextlib, io, json, sys
from pathlib import Path

import hydra
from omegaconf import OmegaConf

import ablations.config
from ablations.config.compose import compose_config

compose_config([])  # registers schema and groups
conf = Path(ablations.config.__file__).with_name("conf")
composed = []


@hydra.main(version_base="1.3", config_path=str(conf), config_name="config")
def main(config):
    composed.append(OmegaConf.to_container(config))


quiet = [f"hydra.run.dir={sys.argv[1]}", "hydra.output_subdir=null", "hydra/job_logging=none"]
results = []
for line in json.load(sys.stdin):
    sys.argv[1:] = [*line, *quiet]
    composed.clear()
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        main()
    results.append(composed[0] if composed else None)
print(json.dumps(results))
"""
LINES = """
train.epochs=3
train.epochs=3 train.epochs=5
train=short
train=short train=long
train.epochs=3 train=short
+train.epochs=3
++train.epochs=3
+replicates=3
++replicates=3
+data.seed=3
+train=short
++train=short
+attention=none
+tune.space={train.learning_rate:[0.1,0.2]}
++tune.space.a=[0.1,0.2]
+sweep.factors.attention.gate=[sigmoid]
+sweep.factors.attention.groups=[2]
++sweep.factors.attention.groups=[2]
sweep.factors.attention.groups=[2]
sweep.factors={attention:{groups:[2]}}
+sweep.factors={attention:{gate:[tanh]}}
++sweep.factors={attention:{gate:[tanh]}}
+sweep.variants.x={attention:none}
+sweep.variants.none.attention=se
++sweep.variants.none.attention=se
~sweep.variants.none
~sweep.variants.none={attention:none}
~sweep.variants.none=none
~sweep.variants.nope
~sweep.factors.attention.groups
~sweep.factors.attention.groups=[1,2,4,8]
~sweep.factors.attention.groups=[1]
~sweep.variants.none.attention
~sweep.factors
~train.epochs
~train.epochs=4
~train.nope
~nope
~~train
~train=short
nope=3
train.nope=3
train=nope
train.epochs
train.epochs=
train.epochs=many
+
train@x=short
seed=${replicates}
sweep.question='a, b'
sweep.question=a,b
data=[digits]
""".strip().split("\n")
# Intended differences from Hydra, with reasons.
STRICTER = {
    "+nope=3": "an unknown option is a mistake",
    "++nope=3": "an unknown option is a mistake",
    "+train.nope=3": "an unknown option is a mistake",
    "~replicates": "every option has a value",
    "~train": "every study has one choice in each group",
    "~data": "every study has one choice in each group",
    "data=[digits]": "every study has one choice in each group",
}
LOOSER = {
    "sweep.variants.x={attention:none}": "users choose the names of variants",
    "sweep.baseline=groups=4": "the text is unambiguous",
}


@pytest.fixture(scope="module")
def hydras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Hydra's configuration for each line."""
    lines = list(dict.fromkeys([*LINES, *STRICTER, *LOOSER]))
    words = json.dumps([_words(line) for line in lines])
    program = [sys.executable, "-c", PROGRAM, str(tmp_path_factory.mktemp("hydra"))]
    done = subprocess.run(program, input=words, capture_output=True, text=True, check=True)
    return dict(zip(lines, json.loads(done.stdout.splitlines()[-1]), strict=True))


def _words(line: str) -> list[str]:
    return [line] if "'" in line else line.split()


def ours(capsys: pytest.CaptureFixture[str], *typed: str) -> Any:
    """Returns the output of `--cfg` as data; None if the line is refused."""
    status = cli.main("run", "Does it.", lambda *_: 7, ["--cfg", "job", *typed])
    printed = capsys.readouterr()
    assert (status, bool(printed.err)) in ((0, False), (cli.USAGE_STATUS, True))
    return yaml.safe_load(printed.out) if status == 0 else None


def compared(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a configuration that has the same names in both."""
    kept = {name: value for name, value in config.items() if name in ("data", "model", "attention", "train", "tune")}
    sweep = {name: value for name, value in config["sweep"].items() if name != "name"}
    return kept | {"sweep": sweep, "replicates": config["replicates"], "seed": config["seed"]}


@pytest.mark.parametrize("line", [line for line in LINES if line not in STRICTER])
def test_lines_are_composed_as_by_hydra(hydras: dict[str, Any], capsys: pytest.CaptureFixture[str], line: str) -> None:
    config, expected = ours(capsys, *_words(line)), hydras[line]
    assert (config is None) == (expected is None)
    if config is not None:
        config, expected = compared(config), compared(expected)
        if "factors" in line:  # the suite generates a question for new factors
            config["sweep"].pop("question")
            expected["sweep"].pop("question")
        assert config == expected


def test_differences_from_hydra_are_intended(hydras: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for line in STRICTER:
        assert (ours(capsys, *_words(line)), hydras[line] is None) == (None, False), line
    for line in LOOSER:
        assert hydras[line] is None
        assert ours(capsys, *_words(line)) is not None, line


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("+train.epochs=3", refusal("+train.epochs=3", "options.set_already")),
        ("~sweep.variants.none=3", refusal("~sweep.variants.none=3", "options.not_there", found="{attention: none}")),
        ("model=resnet8,resnet20", refusal("model=resnet8,resnet20", "options.takes_one", like="[1,2]", then="-m")),
    ],
)
def test_errors_contain_the_correct_form(capsys: pytest.CaptureFixture[str], typed: str, message: str) -> None:
    assert cli.main("run", "Does it.", lambda *_: 0, [typed]) == cli.USAGE_STATUS
    assert re.match(f"error: {message}", capsys.readouterr().err)


def output(capsys: pytest.CaptureFixture[str], *typed: str, verb: str = "run") -> str:
    assert cli.main(verb, "Does it.", lambda *_: 7, typed) == 0
    return capsys.readouterr().out


def test_cfg_prints_the_options_of_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(output(capsys, "--cfg", "job", "train=short", "study=${sweep.name}-x", "replicates.max=40"))
    assert (config["study"], config["replicates.max"]) == ("${sweep.name}-x", 40)
    assert config["train"]["epochs"] == compose_config(["train=short"]).train.epochs
    assert not {"plan", "bench", "figures"} & set(config)
    resolved = yaml.safe_load(output(capsys, "--cfg", "job", "--resolve", "study=${sweep.name}-x"))
    assert resolved["study"] == "groups-x"
    assert "pilot" in yaml.safe_load(output(capsys, "--cfg", "job", verb="plan"))["plan"]
    assert yaml.safe_load(output(capsys, "--cfg", "job", "recipes=[quick,short]"))["recipes"] == ["quick", "short"]


def test_cfg_prints_one_package_or_hydras_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    first, rest = output(capsys, "--cfg", "job", "-p", "sweep.factors", "sweep=norm").split("\n", 1)
    assert first == "# @package sweep.factors"
    assert yaml.safe_load(rest) == compose_config(["sweep=norm"]).sweep.factors
    assert output(capsys, "-c", "job", "-p", "train.epochs", "train.epochs=9") == "9\n"
    assert set(yaml.safe_load(output(capsys, "--cfg", "hydra"))) == {"hydra"}
    assert {"hydra", "sweep", "seed"} <= set(yaml.safe_load(output(capsys, "--cfg", "all")))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--cfg", "job", "-p", "trian"], refusal("--package=trian", "cli.no_part", near="train")),
        (["--cfg", "hydra", "--resolve"], refusal("--resolve", "cli.job_only")),
        (["--cfg", "job", "trian=short"], refusal("trian", "options.no_such", what="option", near="train")),
        (["--info", "train=shrot"], refusal("train=shrot", "options.no_such", what="train", near="short")),
        (["--info", "-cd", "/nowhere"], refusal("--config-dir=/nowhere", "options.no_folder")),
    ],
)
def test_invalid_uses_of_cfg_and_info_are_one_message(
    capsys: pytest.CaptureFixture[str], typed: Sequence[str], message: str
) -> None:
    assert cli.main("run", "Does it.", lambda *_: 0, typed) == cli.USAGE_STATUS
    assert re.match(f"error: {message}", capsys.readouterr().err)


def test_info_prints_search_path_defaults_and_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text("defaults: [norm]\nquestion: Mine?\n")
    text = output(capsys, "--info", f"--config-dir={tmp_path}", "sweep=mine", "train=short")
    assert f"file://{tmp_path}" in text
    assert re.search(r"^\| sweep/norm +\| sweep +\| False +\| sweep/mine +\|$", text, re.M)
    assert re.search(r"^ +sweep/mine\n +sweep/norm\n +_self_$", text, re.M)
    assert "question: Mine?" in text
    alone = output(capsys, "--info", "defaults", "train=short")
    assert "train/short" in alone
    assert "file://" not in alone
