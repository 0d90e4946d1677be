from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ablations.common.errors import SuiteError
from ablations.config.compose import compose_config
from ablations.config.quoting import quoted
from ablations.storage.database import check_url
from ablations.storage.paths import make_folder, study_folder
from tests.wording import refusal, worded

CONFIG = compose_config([])


@pytest.mark.parametrize(
    "name",
    ["a", "_x", "groups-digits-resnet8", "7", "a.b", "x+y=z", "größe", "研究", "אבג", "ध्यान", "é" * 100, "nullable"],
)
def test_study_names_that_are_valid_folder_names_everywhere_are_accepted(name: str, tmp_path: Path) -> None:
    folder = study_folder(replace(CONFIG, study=name, results_dir=str(tmp_path)))
    make_folder(folder)
    assert folder == tmp_path / name
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a/b", "paths.no_name"),
        (".hidden", "paths.no_name"),
        ("a b", "paths.no_name"),
        ("a:b", "paths.no_name"),
        ("\u0301", "paths.no_name"),
        ("x" * 101, "paths.no_name"),
        ("研" * 67, "paths.too_long"),
        ("a.", "paths.on_windows"),
        ("NUL", "paths.on_windows"),
        ("com1.x", "paths.on_windows"),
        ("Reference", "paths.own"),
        ("mlflow-artifacts", "paths.own"),
    ],
)
def test_other_names_of_studies_are_refused(name: str, reason: str) -> None:
    with pytest.raises(SuiteError, match=refusal(f"study={name}", reason)):
        study_folder(replace(CONFIG, study=name))


def test_composed_and_decomposed_accents_name_the_same_study() -> None:
    names = ("stu\u0308die", "st\u00fcdie")
    assert {compose_config([f"study={quoted(name)}"]).study for name in names} == {"st\u00fcdie"}


@pytest.mark.parametrize(("existing", "name"), [("Groups", "groups"), ("größe", "GRÖSSE")])
def test_a_folder_that_the_file_system_identifies_with_another_study_is_refused(
    existing: str, name: str, tmp_path: Path
) -> None:
    make_folder(tmp_path / existing)
    make_folder(tmp_path / "other")
    make_folder(tmp_path / name)  # two folders here
    (tmp_path / name / "figures").rmdir()
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to(tmp_path / existing)  # one folder on a case-insensitive file system
    with pytest.raises(SuiteError, match=refusal(f"study={name}", "paths.alike", other=existing)):
        make_folder(tmp_path / name)


def test_a_question_mark_in_the_path_of_a_database_url_is_refused() -> None:
    for url in ("sqlite:////x/what?/optuna.db", "sqlite:///a?b"):
        with pytest.raises(SuiteError, match=refusal(f"storage={url}", "paths.parameters")):
            check_url("storage", url)
    for url in ("sqlite:////x/what%3F/optuna.db", "sqlite:///x.db?timeout=3"):
        check_url("storage", url)


@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "paths.long_name"), ("a\0b", "paths.nul")])
def test_an_invalid_path_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=worded(reason)):
        study_folder(replace(CONFIG, results_dir=str(tmp_path / name)))
    with pytest.raises(SuiteError, match=worded(reason)):
        check_url("storage", f"sqlite:///{tmp_path / name}")
