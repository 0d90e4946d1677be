"""Top-1 against parameters, with circles for multiply-adds: the paper's Figure 1, and published numbers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ablations.analysis.published import published_results
from ablations.common.metrics import METRICS
from ablations.design import Design
from ablations.reporting.figures import style
from ablations.reporting.figures.marks import handle
from ablations.stats import cells_by_variant

_MODULES = ("none", "sa", "se", "eca", "cbam", "gc", "sge")
_COLUMNS = [
    "variant", "attention", "model", "n", "top1", "low", "high", "parameters", "multiply_adds", "source",
]  # fmt: skip
_AREA = 130.0  # of the largest circle, in points squared
_PUBLISHED = {"resnet50": "ResNet-50", "resnet101": "ResNet-101"}


def complexity_frame(cells: pd.DataFrame, design: Design, multiply_adds: Mapping[str, float]) -> pd.DataFrame:
    """Returns one row per variant with a finished cell and known multiply-adds.

    Columns: `variant`, `attention`, `model`, `n`, `top1` (mean) with its 95 % CI from `low` to `high` (empty where n is
    1), `parameters`, `multiply_adds` per image, and `source`, which is empty for this study.
    """
    groups = cells_by_variant(cells)
    rows = [
        {"variant": variant.name, "attention": variant.attention["name"], "model": variant.model["name"]}
        | style.top1_of(own)
        | {"parameters": own["parameters"].iloc[0], "multiply_adds": multiply_adds[variant.name], "source": ""}
        for variant in design.variants
        if variant.name in multiply_adds and (own := groups.get(variant.name)) is not None
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def published_frame(design: Design) -> pd.DataFrame:
    """Returns published results of the study's modules and backbones, in the same columns, with the `source`.

    Empty unless the study compares at least three modules.
    """
    modules = {variant.attention["name"] for variant in design.variants}
    shown = published_results()
    if len(modules & set(_MODULES)) < 3:  # most sweeps compare sa with none
        return pd.DataFrame(columns=_COLUMNS)
    shown = shown[shown["attention"].isin(modules)]
    shown = shown.rename(columns={"backbone": "model"}).assign(variant=shown["attention"] + " " + shown["backbone"])
    return shown.reindex(columns=_COLUMNS)


def draw_complexity(frame: pd.DataFrame, published: pd.DataFrame, baselines: Mapping[str, str], caption: str) -> Figure:
    """Draws this study and, on separate scales, `published` results (may be empty); baselines are grey.

    Colours are modules and markers backbones if the study has several backbones and each module at most once per
    backbone; otherwise colours and markers are variants.
    """
    models = list(dict.fromkeys(frame["model"]))
    by_module = len(models) > 1 and not frame.duplicated(["model", "attention"]).any()
    markers = {model: style.appearance_of(index)["marker"] for index, model in enumerate(models) if by_module}
    frame = frame.assign(series=frame["attention" if by_module else "variant"])
    published = published.assign(series=published["attention"])
    names = list(dict.fromkeys([*frame["series"], *published["series"]]))
    own_baselines = [name for name in frame["variant"] if baselines.get(name) == name]
    appearances = style.appearances_of(names, set(frame.loc[frame["variant"].isin(own_baselines), "series"]))
    labels = dict(zip(names, style.row_labels(names), strict=True))
    height = max(2.9, 0.5 + style.rows_height(labels.values()))
    with style.figure(style.TWO_COLUMNS, height, caption) as drawn:
        panels: Sequence[Axes] = drawn.subplots(1, 2 if len(published) else 1, squeeze=False)[0]
        _draw(panels[0], frame, appearances, markers)
        panels[0].set_title(f"This study\n{_spread(frame)}", loc="left")
        if len(published):
            _draw(panels[1], published, appearances, {})
            for model, own in published.groupby("model"):
                top = (own["parameters"].mean(), own["top1"].max())
                panels[1].annotate(_PUBLISHED[str(model)], top, (0, 9), textcoords="offset points", ha="center")
            panels[1].set_title(f"Published, ImageNet-1k\n{_spread(published)}", loc="left")
            panels[1].set_ylabel("")
        plain = {"marker": "o"} if markers else {}
        handles = [handle(labels[name], **appearances[name] | plain) for name in names]
        handles += [handle(model, marker=marker, color="#999999") for model, marker in markers.items()]
        drawn.legend(handles=handles, loc="outside right upper")
    return drawn


def _draw(
    axes: Axes, frame: pd.DataFrame, appearances: Mapping[str, dict[str, Any]], markers: Mapping[str, str]
) -> None:
    """Draws networks in the colours of `appearances`, with the `markers` of their backbones, if any."""
    import seaborn as sns  # takes seconds

    parameters, colours = (
        frame["parameters"].astype(float),
        {name: appearance["color"] for name, appearance in appearances.items()},
    )
    shapes = [
        markers.get(model, appearances[name]["marker"])
        for model, name in zip(frame["model"], frame["series"], strict=True)
    ]
    frame = frame.assign(place=style.aside(parameters), shape=shapes)
    axes.vlines(
        frame["place"],
        frame["low"],
        frame["high"],
        colors=[colours[name] for name in frame["series"]],
        linewidth=0.9,
        alpha=0.7,
    )
    shown: dict[str, Any] = {"data": frame, "x": "place", "y": "top1", "hue": "series", "palette": colours, "ax": axes}
    shown |= {"legend": False, "linewidth": 0, "clip_on": False}
    largest = frame["multiply_adds"].max()
    sns.scatterplot(size="multiply_adds", size_norm=(0, largest), sizes=(0, _AREA), alpha=0.35, **shown)
    sns.scatterplot(style="shape", markers={shape: shape for shape in shapes}, s=13, **shown)
    axes.margins(x=0.15, y=0.15)
    style.keep_to_percent(axes)
    style.scale_of_costs(axes, parameters)
    axes.xaxis.set_major_formatter(FuncFormatter(_parameters))
    axes.set(xlabel="Parameters", ylabel=METRICS["top1"].axis)


def _parameters(value: float, _: object) -> str:
    """Formats a number of parameters: `75,400`, or `25.6 M` for millions."""
    if value != round(value):
        return ""  # numbers of parameters are integers
    millions = f"{value / 1e6:,.6f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if abs(value) < 1e6 else f"{millions} M"


def _spread(frame: pd.DataFrame) -> str:
    """Formats the range of multiply-adds: `0.0125 to 0.0127 GFLOPs`."""
    low, high = (f"{value / 1e9:.4g}" for value in (frame["multiply_adds"].min(), frame["multiply_adds"].max()))
    return f"{low} GFLOPs" if low == high else f"{low} to {high} GFLOPs"
