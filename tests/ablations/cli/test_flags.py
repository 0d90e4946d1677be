from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from ablations.cli.flags import FLAGS, NAMES, read_flags
from ablations.common.errors import UsageError
from tests.wording import refusal, worded


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["-m", "model=resnet8,resnet20"], {"multirun": True}),
        (["model=resnet8", "--multirun"], {"multirun": True}),
        (["--cfg", "job", "seed=1", "--resolve", "-p", "train"], {"cfg": "job", "resolve": True, "package": "train"}),
        (["seed=1", "-c=all"], {"cfg": "all"}),
        (["-cd", "mine", "seed=1"], {"config_dir": "mine"}),
        (["--config-dir=mine"], {"config_dir": "mine"}),
        (["--info"], {"info": "all"}),
        (["-i", "defaults", "seed=1"], {"info": "defaults"}),
        (["--info", "seed=1", "sweep=norm"], {"info": "all"}),
        (["-h"], {"help": True}),
        (["--version"], {"version": True}),
        (["-sc", "install=bash"], {"shell_completion": True}),
        (["sweep.question=-m?", "~sweep.variants.none", "+x=1"], {}),
    ],
)
def test_flags_are_separated_from_overrides_in_any_order(typed: Sequence[str], expected: dict[str, object]) -> None:
    line = read_flags(typed)
    assert line.overrides == [word for word in typed if ("=" in word and word[0] != "-") or word[0] == "~"]
    flags = {name: value for name, value in vars(line).items() if name != "overrides" and value}
    assert flags == expected


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--hlep"], refusal("--hlep", "options.no_such", what="flag", near="--help", valid=", ".join(NAMES))),
        (["--config-name=x"], refusal("--config-name", "options.no_such", what="flag")),
        (["-"], refusal("-", "options.no_such", what="flag")),
        (["--", "seed=1"], refusal("--", "options.no_such", what="flag")),
        (["--config-dir"], refusal("--config-dir", "cli.needs_folder")),
        (["-cd"], refusal("-cd", "cli.needs_folder")),
        (["--config-dir="], refusal("--config-dir", "cli.needs_folder")),
        (["-cd="], refusal("-cd", "cli.needs_folder")),
        (["-p"], refusal("-p", "options.no_value")),
        (["--multirun=yes"], refusal("--multirun=yes", "cli.no_value")),
        (["--cfg"], refusal("--cfg", "options.no_value")),
        (["--cfg", "jobs"], refusal("--cfg=jobs", "cli.not_valid", near="job", valid="job, hydra, all")),
        (["-c", "jobs"], refusal("-c=jobs", "cli.not_valid", near="job", valid="job, hydra, all")),
        (["--info=plugins"], refusal("--info=plugins", "cli.not_valid", valid="all, config, defaults")),
        (["--resolve"], refusal("--resolve", "cli.needs_cfg")),
        (["--package=train"], refusal("--package", "cli.needs_cfg")),
    ],
)
def test_errors_name_the_invalid_flag(typed: Sequence[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_flags(typed)
    assert re.match(message, str(caught.value))


def test_every_flag_is_in_the_help() -> None:
    names = {name for flag in FLAGS for name in re.findall(r"(?:^| )(--?[\w-]+)", flag)}
    assert set(NAMES) < names
    assert {name for name in names if not _is_known(name)} == set()


def _is_known(name: str) -> bool:
    try:
        read_flags([name])
    except UsageError as error:
        return worded("options.no_such", what="flag") not in error.reason
    return True
