"""Draws a study's figures into its folder, each with its caption, and says why it has not the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import SuiteError
from ablations.common.wording import count
from ablations.reporting.figures import FIGURES, style
from ablations.reporting.figures.registry import SKETCHES, Sketch
from ablations.reporting.text.scope import missing_sentence, protocol_line, shown_sentence


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn: its name, the caption below it, and its files (PNG, PDF, CSV)."""

    name: str
    caption: str
    files: list[Path]

    @property
    def title(self) -> str:
        """What it shows, in a line."""
        return FIGURES[self.name]

    @property
    def png(self) -> Path:
        """The picture."""
        return next(path for path in self.files if path.suffix == ".png")


@dataclass(frozen=True)
class Gallery:
    """The figures that were drawn, and of the others why they were not."""

    drawn: list[Drawn]
    left_out: Mapping[str, str]


def draw_figures(analysis: StudyAnalysis, names: Iterable[str] = FIGURES) -> Gallery:
    """Draws a study's figures into its folder, those of `names` that it has."""
    drawn: list[Drawn] = []
    left_out: dict[str, str] = {}
    for name in names:
        if analysis.results.cells.empty:
            left_out[name] = "no cell is finished"
            continue
        try:
            sketch = SKETCHES[name](analysis)
        except SuiteError as error:  # weights or images that it needs are not here
            sketch = str(error)
        if isinstance(sketch, str):
            left_out[name] = sketch
            continue
        caption = _caption(analysis, sketch)
        files = style.save(sketch.draw(caption), sketch.frame, analysis.folder / "figures" / name)
        drawn.append(Drawn(name, caption, files))
    return Gallery(drawn, left_out)


def _caption(analysis: StudyAnalysis, sketch: Sketch) -> str:
    counts = analysis.results.cells.groupby("variant")["replicate"].count()
    least, most = counts.min(), counts.max()
    replicates = f"{least} to {most} replicates" if least != most else count(most, "replicate")
    parts = [
        analysis.design.question if sketch.asks else "",
        sketch.key,
        f"n = {sketch.n or f'{replicates} a variant'}.",
        f"{protocol_line(analysis.design, analysis.results)}.",
        shown_sentence(analysis),
        missing_sentence(analysis.results),
    ]
    return " ".join(part for part in parts if part)
