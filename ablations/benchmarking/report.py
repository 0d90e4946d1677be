"""The output of a benchmark: tidy CSV, tables, figures, report and MLflow runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from ablations.benchmarking.execute import Counted
from ablations.benchmarking.plan import MODULE, NETWORK, PLAIN
from ablations.benchmarking.workloads import BACKWARD, FORWARD, STEP
from ablations.common.parts import RAISE, TRACEBACKS, Parts
from ablations.common.sizes import MIB
from ablations.common.urls import relative_link
from ablations.common.wording import three_digits
from ablations.measure.complexity import Complexity
from ablations.measure.record import Measurement
from ablations.reporting.figures import memory, overhead, roofline, style
from ablations.reporting.figures.rows import SETTING, percent
from ablations.reporting.tables.render import markdown_table
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.markdown import code_block, markdown_text
from ablations.reporting.text.not_made import not_made_lines
from ablations.stats.costs import CostVerdict

if TYPE_CHECKING:
    from ablations.tracking.benchmark import Tracked

MEASUREMENTS, SAMPLES, LAYERS = "measurements.csv", "samples.csv", "layers.csv"
_MEGA = 1e6
_NOT_DIFFERENT = (CostVerdict.SAME.value, CostVerdict.UNDECIDED.value)  # written after a ratio; others are evident


def explanation(margin: float) -> str:
    """Explains the timing protocol and the verdicts; `margin` is in percent."""
    return (
        "Times are relative to the first row: geometric means over rebuilt copies with interleaved timing, 95 % CI. "
        f"`same`: equivalent within {margin:g} % (two one-sided tests). `undecided`: neither different nor equivalent "
        "at the 5 % level, corrected for all subjects that were timed together. The noise floor is the interval of a "
        "second copy of the first row (A/A comparison). `eager`: launched from Python, as a user runs it; `captured`: "
        "replayed as a CUDA graph, without the time of launches."
    )


def frame_of(measurements: Iterable[Measurement], environment: Mapping[str, str]) -> pd.DataFrame:
    """Returns a row per measurement, with additional columns for machine and versions."""
    return pd.DataFrame([measurement.to_row() for measurement in measurements]).assign(**environment)


def layers_frame(counted: Counted) -> pd.DataFrame:
    """Returns a row per layer of each network, with the operations of one forward pass.

    Columns: `backbone`, `name`, `path`, `kind`, `shape` of the output, `multiply_adds` and `uncounted` per image, and
    `moved_mib` per batch.
    """
    rows = [
        {
            "backbone": backbone, "name": name, "path": layer.path, "kind": layer.kind,
            "shape": "x".join(map(str, layer.shape)), "multiply_adds": layer.multiply_adds,
            "uncounted": layer.uncounted, "moved_mib": layer.moved_bytes / MIB,
        }
        for backbone, networks in counted.items()
        for name, complexity in networks.items()
        for layer in complexity.layers
    ]  # fmt: skip
    return pd.DataFrame(rows)


def sections_of(frame: pd.DataFrame, counted: Counted, parts: Parts = RAISE) -> list[Section]:
    """Returns the tables: networks and modules in each setting, and the operations that papers do not count."""
    sections: list[Section | None] = []
    for setting, rows in frame.groupby([*SETTING], sort=False):
        where = ", ".join(map(str, setting))
        for (place, batch), networks in rows[rows["kind"] == NETWORK].groupby(["place", "batch"], sort=False):
            title = f"{place}, batch {batch} of {_shape(networks)}: {where}"
            sections.append(parts.make(f"table {title}", None, _networks, title, networks))
        modules = rows[rows["kind"] == MODULE]
        if len(modules):
            title = f"Modules, batch {modules['batch'].iloc[0]}: {where}"
            sections.append(parts.make(f"table {title}", None, _modules, title, modules))
    for backbone, counts in counted.items():
        if PLAIN in counts:
            name = f"table of uncounted operations in {backbone}"
            sections.append(parts.make(name, None, _uncounted, backbone, counts))
    return [section for section in sections if section]


# By name: the functions that compute a figure's rows and draw them, and the first sentence of the caption.
FIGURES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Callable[[pd.DataFrame, str], Figure], str]] = {
    "overhead": (overhead.overhead_frame, overhead.draw_overhead, "Overhead of attention in a network."),
    "memory": (memory.memory_frame, memory.draw_memory, "Memory of attention."),
    "roofline": (roofline.roofline_frame, roofline.draw_roofline, "Bandwidth of modules relative to a copy."),
}


def draw(frame: pd.DataFrame, folder: Path, where: str, parts: Parts = RAISE) -> list[Path]:
    """Draws all figures that have data into `folder`; returns the written files.

    `where` describes machine and versions, for the captions.
    """
    written: list[Path] = []
    for name in FIGURES:
        written += parts.make(f"figure {name}", [], _draw_figure, name, frame, folder, where, parts)
    return written


def _draw_figure(name: str, frame: pd.DataFrame, folder: Path, where: str, parts: Parts) -> list[Path]:
    compute, draw_figure, title = FIGURES[name]
    rows = compute(frame)
    if not len(rows):
        return []
    kind = MODULE if name == "roofline" else NETWORK
    drawn = frame[frame["kind"] == kind].merge(rows[SETTING].drop_duplicates(), on=SETTING)
    protocol = parts.make(f"caption of figure {name}", "", _protocol, drawn[drawn["status"] == "measured"])
    caption = " ".join(filter(None, (title, protocol, where)))
    return style.save(draw_figure(rows, caption), rows, folder / f"{name}.png")


def text_of(
    title: str, command: str, sections: Sequence[Section], figures: Sequence[Path], environment: Mapping[str, str],
    notes: Sequence[str], folder: Path, parts: Parts = RAISE,
) -> str:  # fmt: skip
    """Returns the report as Markdown; each of `notes` is a paragraph before the tables."""
    lines = [f"# {markdown_text(title)}", "", *not_made_lines(parts, TRACEBACKS)]
    lines += [f"{markdown_text(note)}\n" for note in notes]
    for section in sections:
        lines += [f"## {markdown_text(section.title)}", "", *markdown_table(section.headers, section.rows), ""]
        lines += [markdown_text(section.note), ""] if section.note else []
    lines += [f"![{path.stem}]({relative_link(path, folder)})\n" for path in figures if path.suffix == ".png"]
    lines += ["## Command", "", *code_block(command), ""]
    lines += [*markdown_table(("environment", ""), [[name, value] for name, value in environment.items()]), ""]
    return "\n".join(lines)


def _networks(title: str, rows: pd.DataFrame) -> Section:
    modes = [mode for mode in (FORWARD, STEP) if (rows["mode"] == mode).any()]
    labels = {FORWARD: "inference", STEP: "training step"}
    joules = rows["joules"].notna().any()
    headers = ["network", "parameters", "multiply-adds M", "over no attention", *(labels[mode] for mode in modes)]
    headers += ["saved activations MiB", "peak MiB"] + (["J an image"] if joules else [])
    plain = _first(rows[rows["name"] == PLAIN], "multiply_adds")
    table = []
    for name, network in rows.groupby("name", sort=False):
        adds = _first(network, "multiply_adds")
        last = network.iloc[-1]
        table.append([
            str(name), _number(_first(network, "parameters")), _number(adds / _MEGA, 2),
            "" if name == PLAIN else _share(adds, plain),
            *(_time(network[network["mode"] == mode]) for mode in modes),
            _number(_first(network, "saved_mib"), 1), _number(last["peak_mib"], 1),
            *([_number(last["joules"], 3)] if joules else []),
        ])  # fmt: skip
    note = f"Noise floor (A/A): {_noise(rows)}. Peak: of {labels[modes[-1]]}."
    return Section(title, note, tuple(headers), table)


def _modules(title: str, rows: pd.DataFrame) -> Section:
    places = list(dict.fromkeys(rows["place"]))
    shapes = {place: _shape(rows[rows["place"] == place]) for place in places}
    table = []
    for mode in (FORWARD, BACKWARD):
        for name, module in rows[rows["mode"] == mode].groupby("name", sort=False):
            table.append([mode, str(name), *(_time(module[module["place"] == place]) for place in places)])
    note = f"Times relative to a copy of the feature map. Noise floor (A/A): {_noise(rows)}."
    headers = ("mode", "module", *(f"{place} {shapes[place]}" for place in places))
    return Section(title, note, headers, table, names=2)


def _uncounted(backbone: str, networks: Mapping[str, Complexity]) -> Section:
    plain = networks[PLAIN].uncounted_kinds
    rows = []
    for name, complexity in networks.items():
        kinds = complexity.uncounted_kinds
        added = {kind: kinds.get(kind, 0) - plain.get(kind, 0) for kind in kinds.keys() | plain.keys()}
        if name != PLAIN:
            largest = sorted(added.items(), key=lambda item: -item[1])
            named = [f"{kind} {number / _MEGA:.2f}" for kind, number in largest if abs(number) >= _MEGA / 200]
            rows.append([name, _number(sum(added.values()) / _MEGA, 2), ", ".join(named)])
    note = (
        "Elementwise operations per image that attention adds and papers do not count; they are bound by memory "
        "bandwidth."
    )
    return Section(
        f"Operations not counted as multiply-adds in {backbone}", note, ("network", "M", "of which, M"), rows
    )


def _time(rows: pd.DataFrame) -> str:
    """Formats a time: the baseline in milliseconds, others as a ratio to it, failures as text."""
    if rows.empty:
        return "–"
    row = rows.iloc[0]
    if row["status"] != "measured":
        return str(row["status"])
    if math.isnan(row["ms"]):
        return "–"
    if row["verdict"] == "baseline":
        return f"{three_digits(row['ms'])} ms"
    text = f"{_ratio(row['ratio'])} [{_ratio(row['ratio_low'])}, {_ratio(row['ratio_high'])}]"
    return f"{text} {row['verdict']}" if row["verdict"] in _NOT_DIFFERENT else text


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _noise(rows: pd.DataFrame) -> str:
    floors = {
        str(mode): max(of_mode["noise_high"].max() - 1, 1 - of_mode["noise_low"].min())
        for mode, of_mode in rows.dropna(subset=["noise_low"]).groupby("mode", sort=False)
    }
    return ", ".join(f"{mode} ±{100 * floor:.1f} %" for mode, floor in floors.items()) or "not measured"


def _protocol(rows: pd.DataFrame) -> str:
    copies, row = rows["copies"], rows.iloc[0]
    count = f"{copies.min()} to {copies.max()}" if copies.min() < copies.max() else f"{copies.min()}"
    setting = ", ".join(str(row[name]) for name in SETTING)
    timed = f"; n = {count} rebuilt copies, interleaved timing, means with 95 % CI" if copies.max() else ""
    return f"{setting}; batch {row['batch']}{timed}."


def _shape(rows: pd.DataFrame) -> str:
    row = rows.iloc[0]
    return f"{row['channels']}x{row['height']}x{row['width']}"


def _first(rows: pd.DataFrame, column: str) -> float:
    values = rows[column].dropna()
    return float(values.iloc[0]) if len(values) else math.nan


def _number(value: float, digits: int = 0) -> str:
    return "–" if math.isnan(value) else f"{value:,.{digits}f}"


def _share(value: float, plain: float) -> str:
    return "–" if math.isnan(value) or math.isnan(plain) else percent(100 * (value / plain - 1))


def tracked_of(frame: pd.DataFrame) -> list[Tracked]:
    """Returns the runs for MLflow, networks first."""
    from ablations.tracking.benchmark import Tracked  # imports MLflow

    tracked = []
    by = ["kind", "place", "batch", *SETTING, "name"]
    groups = frame.sort_values("kind", key=lambda kinds: kinds != NETWORK, kind="stable").groupby(by, sort=False)
    for place, rows in groups:
        params = dict(zip(by, map(str, place), strict=True)) | {"shape": _shape(rows)}
        metrics: dict[str, float] = {}
        for row in rows.to_dict("records"):
            mode = row["mode"].replace("+", "_").replace(" ", "_")
            quantities = {f"{mode}_{name}": row[name] for name in ("ms", "ratio", "peak_mib", "joules")}
            quantities |= {name: row[name] for name in ("saved_mib", "multiply_adds", "uncounted", "parameters")}
            metrics |= {name: float(value) for name, value in quantities.items() if not math.isnan(value)}
        tracked.append(Tracked(f"{params['name']} {params['place']}", params, metrics))
    return tracked
