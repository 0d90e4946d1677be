from __future__ import annotations

from pathlib import Path

import pytest

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.storage.checkpoints import Checkpoints
from tests.disks import NEEDS_FULL_DISK, fill_disk_for, leave_partial

CELLS = list(make_design(compose_config(["device=cpu"])).cells())


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "study" / "checkpoints")


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_latest_checkpoint_of_each_cell_is_read_until_it_is_removed(checkpoints: Checkpoints) -> None:
    one, other = CELLS[:2]
    assert checkpoints.read(one) is None
    for content in (b"first", b"second"):
        checkpoints.write(one, content)
    checkpoints.write(other, b"other")
    assert (checkpoints.read(one), checkpoints.read(other)) == (b"second", b"other")
    assert names(checkpoints) == sorted(f"{cell.key}.pt" for cell in (one, other))
    checkpoints.remove(one)
    checkpoints.remove(one)
    assert (checkpoints.read(one), checkpoints.read(other)) == (None, b"other")
    checkpoints.remove(other)
    assert not checkpoints.folder.exists()


@NEEDS_FULL_DISK
def test_a_checkpoint_that_cannot_be_written_takes_the_one_before_with_it_and_no_other(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = CELLS[:2]
    checkpoints.write(one, b"first")
    checkpoints.write(other, b"other")
    fill_disk_for(checkpoints.path(one), monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(one, b"second")
    assert (checkpoints.read(one), checkpoints.read(other)) == (None, b"other")
    assert names(checkpoints) == [f"{other.key}.pt"]


def test_what_a_killed_writer_left_of_a_checkpoint_goes_with_it(checkpoints: Checkpoints) -> None:
    one, other = CELLS[:2]
    for cell in (one, other):
        checkpoints.write(cell, b"whole")
        leave_partial(checkpoints.path(cell))
    checkpoints.remove(one)
    assert len(names(checkpoints)) == 2
    assert all(other.key in name for name in names(checkpoints))
    checkpoints.remove(other)
    assert not checkpoints.folder.exists()
