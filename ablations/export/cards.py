"""A model card for each network whose weights are kept: Markdown with the front matter that Hugging Face reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.common.files import write_whole
from ablations.common.metrics import METRICS
from ablations.common.names import plain_names
from ablations.common.urls import relative_link
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.text.markdown import code_block, markdown_text
from ablations.reporting.text.numbers import mean_with_interval
from ablations.reporting.text.scope import data_line, protocol_line, protocol_options
from ablations.reporting.text.verdicts import contrast_sentence
from ablations.storage.files import Weights
from ablations.training.weights import KeptNetwork

if TYPE_CHECKING:
    import pandas as pd

    from ablations.analysis.study import StudyAnalysis
    from ablations.design import Cell, Design

_MEASURED = ("top1", "test_loss", "ece", "parameters")


def export_cards(analysis: StudyAnalysis, folder: Path) -> list[Path]:
    """Writes `cards/<variant>-r<replicate>.md` for each finished cell whose weights are kept.

    Raises:
        OSError: if a card cannot be written or a weights file cannot be read.
        ValueError: if no weights are kept, or a weights file contains none.
    """
    place, weights, design = folder / "cards", Weights(analysis.folder / "weights"), analysis.design
    variants = {variant.name: variant for variant in design.variants}
    finished = analysis.results.cells[["variant", "replicate"]].itertuples(index=False)
    cells = [design.cell(variants[variant], int(replicate)) for variant, replicate in finished]
    kept = [cell for cell in cells if weights.path(cell).is_file()]
    if not kept:
        raise ValueError(f"no weights are kept in {weights.folder}")
    shutil.rmtree(place, ignore_errors=True)
    names = plain_names(variants)
    for cell in kept:
        path = place / f"{names[cell.variant.name]}-r{cell.replicate}.md"
        write_whole(path, _card(analysis, cell, weights.path(cell), path))
    return [place]


def _card(analysis: StudyAnalysis, cell: Cell, weights: Path, path: Path) -> str:
    """Returns the text of the card at `path`."""
    design, cells = analysis.design, analysis.results.cells
    row = cells[(cells["variant"] == cell.variant.name) & (cells["replicate"] == cell.replicate)].iloc[0]
    lines = [
        "---",
        _front_matter(design, cell, float(row["top1"])),
        "---",
        "",
        f"# {markdown_text(cell.name)}",
        "",
        f"A network of the study {markdown_text(design.study)}: {markdown_text(design.question)}",
        "",
        *_results(analysis, cell, row),
        *_use(KeptNetwork.read(weights), weights.name, relative_link(weights, path.parent)),
        "## Limits",
        "",
        "Trained to compare attention modules under one protocol, not for the highest accuracy. This is one replicate; "
        "the verdict is about all of them.",
        "",
        "## Training",
        "",
        *markdown_table(("option", "value"), [list(pair) for pair in protocol_options(analysis).items()]),
        "",
    ]
    return "\n".join(lines)


def _front_matter(design: Design, cell: Cell, top1: float) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    data = design.protocol["data"]
    result = EvalResult("image-classification", data["name"], data_line(data), "accuracy", top1 / 100)
    return ModelCardData(
        model_name=f"{design.study}: {cell.name}",
        library_name="pytorch",
        pipeline_tag="image-classification",
        tags=["shuffle-attention", "ablation-study", str(cell.variant.model["name"])],
        metrics=["accuracy"],
        eval_results=[result],
    ).to_yaml()


def _results(analysis: StudyAnalysis, cell: Cell, row: pd.Series) -> list[str]:
    design = analysis.design
    summary = next(summary for summary in analysis.summaries if summary.variant == cell.variant.name)
    contrast = summary.contrast
    verdict = contrast_sentence(contrast, design.margin, METRICS[design.metric]) if contrast else "This is a baseline."
    measured = [[METRICS[key].axis, METRICS[key].format(float(row[key]))] for key in _MEASURED]
    line = protocol_line(design, analysis.results)
    return [
        "## Results",
        "",
        *markdown_table(("metric", "this network"), measured),
        "",
        f"Top-1 over replicates: {mean_with_interval(summary.top1)} % (n = {summary.top1.n}). {markdown_text(verdict)}",
        "",
        f"Protocol: {markdown_text(line)}.",
        "",
    ]


def _use(network: KeptNetwork, name: str, link: str) -> list[str]:
    inputs = network.inputs
    mean, std = ([round(value, 2) for value in values] for values in (inputs.mean, inputs.std))
    code = (
        "from pathlib import Path\n"
        "from ablations.training.weights import KeptNetwork\n\n"
        f"network = KeptNetwork.read(Path({name!r})).build()"
    )
    return [
        "## Use",
        "",
        f"Weights: [{name}]({link}), in the safetensors format.",
        "",
        *code_block(code),
        "",
        f"Input: float32 images of shape (B, 3, {inputs.side}, {inputs.side}); each channel is (grey level - mean) / "
        f"std with mean {mean} and std {std}. Output: logits of {len(network.classes)} classes.",
        "",
    ]
