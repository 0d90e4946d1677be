from __future__ import annotations

from pathlib import Path

import pytest

from ablations.config.compose import compose_config
from ablations.design import Cell, make_design
from ablations.storage.checkpoints import Checkpoints

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


def full(checkpoints: Checkpoints, cell: Cell) -> None:
    """Has the next write find a full disk."""
    (checkpoints.folder / f".{cell.key}.partial").symlink_to("/dev/full")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_checkpoint_that_cannot_be_written_takes_the_one_before_with_it_and_no_other(
    checkpoints: Checkpoints,
) -> None:
    one, other = CELLS[:2]
    checkpoints.write(one, b"first")
    checkpoints.write(other, b"other")
    full(checkpoints, one)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(one, b"second")
    assert (checkpoints.read(one), checkpoints.read(other)) == (None, b"other")
    assert names(checkpoints) == [f"{other.key}.pt"]
