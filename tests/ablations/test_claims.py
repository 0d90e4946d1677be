from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from ablations import cli
from ablations.claims import PURPOSE, claims
from ablations.ledger.declared import CLAIMS, Claim, Expectation
from ablations.ledger.stored import Study
from ablations.plan import plan
from ablations.storage.study import FORMAT, open_store
from tests.builders.claims import REAL, by_name, store_study
from tests.builders.claims import claim as by_id
from tests.builders.markdown import unescaped
from tests.conftest import TINY, Command
from tests.wording import refusal, worded

COMPUTED = {"params": "contradicted", "flops": "reproduced", "norm": "reproduced", "small": "reproduced"}
SHUFFLE = ("sweep=shuffle", REAL, "replicates=8", "sweep.variants={none: {attention: none}}")


def call(folder: Path, *arguments: str) -> int:
    return cli.main("claims", PURPOSE, claims, [*arguments, f"results_dir={folder}"])


def verdicts(folder: Path) -> dict[str, str]:
    frame = pd.read_csv(folder / "claims.csv", keep_default_na=False)
    assert set(frame.groupby("claim")["verdict"].nunique()) == {1}
    return dict(zip(frame["claim"], frame["verdict"], strict=True))


def commands(text: str) -> dict[str, str]:
    lines = [line.removeprefix("To settle ") for line in text.splitlines() if line.startswith("To settle ")]
    return {name: command for name, _, command in (line.partition(": ") for line in lines)}


def rows(lines: Sequence[str]) -> list[str]:
    """Returns the claims in the order of the table."""
    return [first for line in lines if line.startswith("│") and (first := line.split("│")[1].strip())]


def test_without_studies_computable_claims_are_decided_and_others_have_a_command(
    tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "results"
    done = command("claims", f"results_dir={folder}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert rows(lines) == [claim.id for claim in CLAIMS]
    assert verdicts(folder) == {claim.id: COMPUTED.get(claim.id, "not run") for claim in CLAIMS}
    assert commands(done.stdout) == {claim.id: claim.command for claim in CLAIMS if claim.expects is not None}
    assert lines[-2:] == [f"Claims:     {folder / 'claims.md'}", f"{'':11} {folder / 'claims.csv'}"]
    assert sorted(path.name for path in folder.rglob("*")) == ["claims.csv", "claims.md"]
    page = unescaped(folder / "claims.md")
    assert page.endswith(f"```\npython -m ablations.claims results_dir={folder}\n```\n")
    for claim in CLAIMS:
        studies = "" if claim.expects is None else "0"
        row = (claim.id, claim.statement, claim.source, claim.rule, studies, COMPUTED.get(claim.id, "not run"))
        assert f"| {' | '.join(row)} |" in page
        assert claim.rule_in_full in page
        assert f"## {claim.id}: {COMPUTED.get(claim.id, 'not run')}\n" in page
        assert f"```\n{claim.command}\n```" in page or claim.expects is None
    assert page.count("- " + worded("ledger.no_networks")) == len(CLAIMS) - len(COMPUTED)


def test_a_stored_study_decides_some_claims_and_is_evidence_for_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_study(tmp_path, by_name({"shuffle=on": 2.0}), *SHUFFLE, known={"train": 24, "test": 9, "classes": ["a", "b"]})
    assert call(tmp_path) == 0
    assert verdicts(tmp_path) == {
        **{claim.id: COMPUTED.get(claim.id, "not run") for claim in CLAIMS},
        "shuffle": "reproduced",
        "gain": "undecided",
    }
    printed = capsys.readouterr().out
    assert set(commands(printed)) == {"gain", "released", "affine", "conv1x1", "rivals"}
    page = unescaped(tmp_path / "claims.md")
    where = (
        "shuffle-cifar10-resnet8 (cifar10 (24 training images, 2 classes); resnet8; 4 epochs; train.decay=weights): "
        "shuffle=on against"
    )
    for name, control, end in (
        ("shuffle", "shuffle=off", ": reproduced"),
        ("gain", "none", worded("ledger.other_scale")),
        ("small", "none", ""),
    ):
        section = page.partition(f"## {name}")[2].partition("##")[0]
        start = rf"- {re.escape(where)} {control}, n = 8, \+2\.00 \[\+1\.9\d, \+2\.0\d\] at 95 %"
        assert re.search(f"^{start}{end}$", section, re.MULTILINE)
    assert "\nEligible comparisons: 1, from 1 study; decided: 1. Each interval is at 95 % or more.\n" in page
    frame = pd.read_csv(tmp_path / "claims.csv").set_index("claim")
    row = frame.loc["shuffle"]
    assert (row["studies"], row["treatment"], row["control"]) == (
        "shuffle-cifar10-resnet8",
        "shuffle=on",
        "shuffle=off",
    )
    assert (row["n"], row["epochs"], row["model"], row["outcome"]) == (8, 4, "resnet8", "reproduced")
    assert (row["rule"], row["comparisons"], row["number_of_studies"]) == ("difference above 0", 1, 1)
    assert row["level"] == pytest.approx(0.95)
    assert frame.loc["rivals", "margin"] == 0.5
    assert row["mean"] == pytest.approx(2.0, abs=0.01)
    assert row["low"] < row["mean"] < row["high"]
    assert "8.0" not in (tmp_path / "claims.csv").read_text()
    assert not frame.loc["gain", "counts"]


def test_studies_that_disagree_are_both_listed_including_the_committed_one(tmp_path: Path) -> None:
    store_study(tmp_path, by_name({"shuffle=on": 2.0}), *SHUFFLE)
    store_study(tmp_path / "reference", by_name({"shuffle=on": -2.0}), *SHUFFLE, "data=cifar100", "study=committed")
    assert call(tmp_path) == 0
    assert verdicts(tmp_path)["shuffle"] == "depends on the scale"
    frame = pd.read_csv(tmp_path / "claims.csv").query("claim == 'shuffle'").set_index("studies")
    assert frame["outcome"].to_dict() == {"shuffle-cifar10-resnet8": "reproduced", "committed": "contradicted"}
    assert list(frame["level"]) == [pytest.approx(0.975)] * 2
    assert frame["storage"].nunique() == 2
    page = unescaped(tmp_path / "claims.md").partition("## shuffle")[2].partition("## small")[0]
    assert "Command that would settle it" not in page
    assert page.count("\n- ") == 2
    assert "so that they hold simultaneously at 95 %." in page


def test_a_copy_of_the_committed_store_is_not_counted_twice(tmp_path: Path) -> None:
    store_study(tmp_path / "reference", by_name({"shuffle=on": 2.0}), *SHUFFLE)
    assert call(tmp_path) == 0
    alone = pd.read_csv(tmp_path / "claims.csv").query("claim == 'shuffle'")
    (tmp_path / "optuna.db").write_bytes((tmp_path / "reference" / "optuna.db").read_bytes())
    assert call(tmp_path) == 0
    both = pd.read_csv(tmp_path / "claims.csv").query("claim == 'shuffle'")
    columns = ["n", "mean", "low", "high", "level", "comparisons", "number_of_studies", "outcome"]
    assert both[columns].to_dict() == alone[columns].to_dict()
    where = f"shuffle-cifar10-resnet8 in sqlite:///{tmp_path / 'reference' / 'optuna.db'}"
    assert worded("ledger.same_runs", replicates="8 replicates", where=where) in unescaped(tmp_path / "claims.md")


def test_digits_decide_no_claim_about_trained_networks(tmp_path: Path) -> None:
    store_study(tmp_path, by_name({"shuffle=on": 2.0}), *SHUFFLE, "data=digits")
    assert call(tmp_path) == 0
    assert verdicts(tmp_path)["shuffle"] == "undecided"
    page = unescaped(tmp_path / "claims.md").partition("## shuffle")[2].partition("## small")[0]
    assert worded("ledger.not_real") in page
    assert "Command that would settle it" in page


def test_the_given_storage_is_read(tmp_path: Path) -> None:
    url = store_study(tmp_path / "elsewhere", by_name({"shuffle=on": -1.0}), *SHUFFLE)
    assert call(tmp_path / "mine", f"storage={url}") == 0
    assert verdicts(tmp_path / "mine")["shuffle"] == "contradicted"


def test_the_margin_is_declared_with_the_claim_and_independent_of_options(tmp_path: Path) -> None:
    sweep = ("sweep=transform", REAL, "replicates=8", "sweep.factors.attention.transform=[affine,conv1x1]",
             "sweep.variants={}")  # fmt: skip
    store_study(tmp_path, by_name({"transform=conv1x1": 0.5}), *sweep)
    for options in ((), ("sweep.margin=1",)):
        assert call(tmp_path, *options) == 0
        assert verdicts(tmp_path)["conv1x1"] == "contradicted"
    assert by_id("conv1x1").margin_reason in unescaped(tmp_path / "claims.md")


def test_of_many_findings_the_table_lists_some_and_the_page_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_study(tmp_path, by_name({}), REAL, "replicates=2", "sweep.factors.attention.groups=[1,2,4,8]")
    assert call(tmp_path) == 0
    assert "more in claims.md" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    page = unescaped(tmp_path / "claims.md").partition("## gain")[2].partition("## params")[0]
    assert page.count(" against none, n = 2, ") == 4


def test_a_study_of_another_format_is_skipped_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = store_study(tmp_path, by_name({}), *SHUFFLE)
    open_store(url, "old", create=True).remember("identity", {"version": 1})
    assert call(tmp_path) == 0
    line = worded("ledger.old_format", study="old", url=url, format=1)
    assert f"\nSkipped: {line}" in capsys.readouterr().out
    assert f"## Skipped studies\n\n- {line}" in unescaped(tmp_path / "claims.md")
    assert verdicts(tmp_path)["shuffle"] == "undecided"


def test_a_damaged_study_affects_no_other_study_and_no_claim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store_study(tmp_path, by_name({"shuffle=on": 2.0}), *SHUFFLE)
    open_store(url, "damaged", create=True).remember("identity", {"version": FORMAT})
    other = store_study(tmp_path, by_name({"shuffle=on": -2.0}), *SHUFFLE, "study=lacking")
    identity = open_store(other, "lacking", create=False).attributes["identity"]
    protocol = {name: value for name, value in identity["protocol"].items() if name != "train"}
    open_store(other, "lacking", create=False).remember("identity", identity | {"protocol": protocol})
    assert call(tmp_path) == 1
    printed, page = capsys.readouterr().out, (tmp_path / "claims.md").read_text(encoding="utf-8")
    for name in ("damaged", "lacking"):
        assert worded("not_made.part", name=f"study {name} in {url}", reason="KeyError: ") in printed
        assert f"- {name} in {url}: cannot be read (KeyError: " in page
    assert verdicts(tmp_path)["shuffle"] == "reproduced"
    assert (tmp_path / "claims-tracebacks.txt").exists()


@pytest.mark.parametrize("claim", [claim.id for claim in CLAIMS])
def test_a_claim_that_fails_is_the_only_missing_one(
    claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablations.ledger import assess

    assessment_of = assess.assessment_of

    def fail(assessed: Claim, studies: Sequence[Study]) -> assess.Assessment:
        if assessed.id == claim:
            raise ValueError("planted")
        return assessment_of(assessed, studies)

    monkeypatch.setattr(assess, "assessment_of", fail)
    assert call(tmp_path) == 1
    assert set(verdicts(tmp_path)) == {declared.id for declared in CLAIMS} - {claim}
    page = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert worded("not_made.part", name=f"claim {claim}", reason="ValueError: planted") in page


@pytest.mark.parametrize("part", ["ledger_frame", "_section", "_page_row", "_row"])
def test_a_part_of_the_ledger_that_fails_does_not_stop_the_others(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablations.ledger import page

    def fail(_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(page, part, fail)
    assert call(tmp_path) == 1
    assert (tmp_path / "claims.md").exists()
    assert (tmp_path / "claims.csv").exists() == (part != "ledger_frame")


def test_a_ledger_is_reproducible_and_changes_no_store(tmp_path: Path) -> None:
    store_study(tmp_path, by_name({}), *SHUFFLE)
    store = (tmp_path / "optuna.db").read_bytes()
    assert call(tmp_path) == 0
    files = [(tmp_path / name).read_bytes() for name in ("claims.md", "claims.csv")]
    assert call(tmp_path) == 0
    assert [(tmp_path / name).read_bytes() for name in ("claims.md", "claims.csv")] == files
    assert (tmp_path / "optuna.db").read_bytes() == store


def test_a_trained_study_is_read(tmp_path: Path) -> None:
    options = [*TINY[1:], "sweep=shuffle", "sweep.variants={}", "train.epochs=1", "device=cpu", "measure=off"]
    places = ["tracking.enabled=false", f"results_dir={tmp_path}"]
    assert cli.main("plan", "", plan, [*options, *places, "plan.pilot=2"]) == 0
    assert call(tmp_path) == 0
    row = pd.read_csv(tmp_path / "claims.csv").set_index("claim").loc["shuffle"]
    assert (row["studies"], row["n"], row["epochs"]) == ("shuffle-digits-resnet8", 2, 1)
    assert (row["verdict"], row["data"]) == ("undecided", "digits (24 training images, 10 classes, 20x20 pixels)")
    assert row["reason"] == "not real images"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results_dir="], "error: " + refusal("results_dir", "paths.needs")),
        (["storage=nonsense"], "error: " + refusal("storage=nonsense", "database.no_url")),
        (["sweep.margin=0"], "error: " + refusal("sweep.margin=0", "options.not_above", above=0)),
        (["sweep.margn=1"], "error: " + refusal("sweep.margn", "options.no_such", what="option", near="sweep.margin")),
        (["plan.pilot=2"], "error: " + refusal("plan.pilot=2", "options.other_verb", owner="plan", verb="claims")),
        (["--claim=gain"], "error: " + refusal("--claim", "options.no_such", what="flag")),
    ],
)
def test_invalid_input_is_one_message_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main("claims", PURPOSE, claims, [f"results_dir={tmp_path}", *arguments]) == 2
    printed = capsys.readouterr()
    assert re.match(message, printed.err)
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert call(tmp_path / "file") == 2
    errors = capsys.readouterr().err
    assert re.match("error: " + refusal(f"results_dir={tmp_path / 'file'}", "files.unwritable", cause=""), errors)
    assert len(errors.splitlines()) == 1


def test_help_imports_no_slow_packages() -> None:
    code = (
        "import sys, ablations.claims as verb; from ablations import cli;"
        "cli.main('claims', verb.PURPOSE, verb.claims, ['--help']);"
        "sys.exit(', '.join({'torch', 'mlflow', 'optuna', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(PURPOSE)


def test_every_claim_has_a_command_unless_it_is_computed() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS) == 10
    for claim in CLAIMS:
        assert bool(claim.command) == (claim.expects is not None)
        assert bool(claim.top1) == (claim.expects is Expectation.TOP1)
