from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest

from ablations.reporting.figures import style
from tests.disks import NEEDS_FULL_DISK, fill_disk_for


def save(path: Path, values: list[float]) -> list[Path]:
    frame = pd.DataFrame({"x": values})
    with style.figure(2.0, 1.0, "A line.") as drawn:
        drawn.subplots().plot(frame["x"])
    return style.save(drawn, frame, path)


def test_a_figure_is_saved_as_png_pdf_and_csv(tmp_path: Path) -> None:
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
def test_a_failed_write_keeps_the_old_file_of_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    before = {path: path.read_bytes() for path in save(tmp_path / "line", [1.0, 2.5])}
    path = tmp_path / f"line{full}"
    fill_disk_for(path, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "line", [3.0, 0.5])
    assert path.read_bytes() == before[path]
    assert sorted(tmp_path.iterdir()) == sorted(before)


# Settings of a matplotlibrc, or of a program before it imports the suite.
SETTINGS: dict[str, dict[Any, Any]] = {
    "LaTeX, which may not be there": {"text.usetex": True, "text.latex.preamble": r"\usepackage{nonsense}"},
    "fonts that may not be there": {"font.family": "No Such Font", "mathtext.fontset": "stix", "pdf.fonttype": 3},
    "sizes": {"figure.dpi": 30, "font.size": 40, "figure.figsize": (40, 40), "savefig.bbox": "tight"},
    "looks": {"axes.facecolor": "black", "lines.linewidth": 9, "path.sketch": (1, 100, 2), "axes.xmargin": 0.4},
    "layouts": {"figure.autolayout": True, "figure.constrained_layout.use": True, "figure.subplot.left": 0.4},
    "numbers": {"axes.formatter.use_locale": True, "axes.unicode_minus": False, "axes.formatter.limits": (0, 0)},
    "formats": {"savefig.format": "svg", "savefig.transparent": True, "savefig.dpi": 10, "savefig.facecolor": "red"},
    "backends": {"backend": "svg", "interactive": True},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_users_matplotlib_settings_have_no_effect(tmp_path: Path, settings: str) -> None:
    expected = [path.read_bytes() for path in save(tmp_path / "expected", [-1.0, 2.5])]
    with mpl.rc_context(SETTINGS[settings]):
        before = dict(mpl.rcParams)
        assert [path.read_bytes() for path in save(tmp_path / "seen", [-1.0, 2.5])] == expected
        assert dict(mpl.rcParams) == before
