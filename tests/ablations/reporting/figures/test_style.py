from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ablations.reporting.figures import style
from tests.disks import NEEDS_FULL_DISK, fill_disk_for


def save(path: Path, values: list[float]) -> list[Path]:
    frame = pd.DataFrame({"x": values})
    with style.figure(2.0, 1.0, "A line.") as drawn:
        drawn.subplots().plot(frame["x"])
    return style.save(drawn, frame, path)


def test_a_figure_is_a_picture_a_page_and_the_frame_behind_them(tmp_path: Path) -> None:
    written = save(tmp_path / "figures" / "line", [1.0, 2.5])
    assert [path.name for path in written] == ["line.png", "line.pdf", "line.csv"]
    assert written == [tmp_path / "figures" / path.name for path in written]
    assert len(list((tmp_path / "figures").iterdir())) == 3
    contents = [path.read_bytes() for path in written]
    assert [content[:4] for content in contents] == [b"\x89PNG", b"%PDF", b"x\n1."]
    save(tmp_path / "figures" / "line", [1.0, 2.5])
    assert [path.read_bytes() for path in written] == contents  # equal figures are equal files


@NEEDS_FULL_DISK
@pytest.mark.parametrize("full", [".png", ".pdf", ".csv"])
def test_a_file_of_a_figure_that_cannot_be_written_is_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    before = {path: path.read_bytes() for path in save(tmp_path / "line", [1.0, 2.5])}
    path = tmp_path / f"line{full}"
    fill_disk_for(path, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "line", [3.0, 0.5])
    assert path.read_bytes() == before[path]
    assert sorted(tmp_path.iterdir()) == sorted(before)
