"""The notebooks run from the first cell to the last, at a small size, and what is committed of them is real."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WHOLE_STUDIES = ("01_quickstart", "03_paper_figures")  # they show figures of `run`; the others draw their own
SMALL = ["replicates=2", "train.epochs=1", "train.batch_size=16", "data.train_images=64", "data.test_images=40",
         "measure.seconds=0.1"]  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of studies that the notebooks share, as they do for people."""
    return tmp_path_factory.mktemp("notebooks") / "results"


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def printed(notebook: Any) -> str:
    """Returns all text that the cells have put out."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    data = [output.data for output in outputs if "data" in output]
    streams = [output.text for output in outputs if output.output_type == "stream"]
    return "\n".join([*streams, *(str(value) for one in data for kind, value in one.items() if "image" not in kind)])


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart",
        "02_read_your_study",
        "03_paper_figures",
        "04_what_sa_learns",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_the_first_cell_to_the_last(path: Path, results: Path, request: pytest.FixtureRequest) -> None:
    if path.stem not in WHOLE_STUDIES:
        request.getfixturevalue("_drawn")
    notebook = read(path)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\nRESULTS, OPTIONS = {str(results)!r}, {SMALL!r}"
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()  # raises where a cell does
    said = printed(notebook)
    assert "error:" not in said  # of a command, whose exit status a cell does not mind
    assert "Traceback" not in said
    assert "\x1b" not in said  # of colours and bars, which are for terminals
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert len(shown) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_was_run_in_order_and_ended_well(path: Path) -> None:
    notebook = read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    said = printed(notebook)
    assert not re.search(r"/(home|root|tmp|work|Users)/", said)
    assert "\x1b" not in said
