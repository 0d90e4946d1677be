"""Under which protocol and on which machine a study's cells were trained, in a line and option by option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.analysis.results import Results
from ablations.analysis.study import StudyAnalysis
from ablations.common.settings import flatten
from ablations.common.wording import count
from ablations.design import Design


def protocol_line(design: Design, results: Results) -> str:
    """Says in a line under which protocol and on which machine the cells were trained."""
    protocol = design.protocol
    machines = " and ".join(
        dict.fromkeys(known["gpu"] if protocol["device"] == "cuda" else known["cpu"] for known in results.environments)
    )
    models = " and ".join(dict.fromkeys(variant.model["name"] for variant in design.variants))
    return (
        f"{data_line(protocol['data'])}, {models}, {count(protocol['train']['epochs'], 'epoch')}, "
        f"{protocol['train']['precision']}, last epoch; {machines}"
    )


def data_line(data: Mapping[str, Any]) -> str:
    """Names a data set, and says of a subset that it is one: `cifar10 (500 training images of each class)`."""
    parts = []
    classes = data.get("classes")
    if isinstance(classes, str):
        parts.append(f"the classes of {classes}")
    elif classes:
        parts.append(count(len(classes) if isinstance(classes, list) else classes, "class", "classes"))
    for option, what in (("train_per_class", "training"), ("val_per_class", "test")):
        if data.get(option):
            parts.append(f"{data[option]:,} {what} images of each class")
    if "resolution" in data:
        parts.append(f"{data['resolution']}x{data['resolution']} pixels")
    return f"{data['name']} ({', '.join(parts)})" if parts else str(data["name"])


def protocol_options(analysis: StudyAnalysis) -> dict[str, str]:
    """Returns what all cells share, by the names of the options."""
    options = {name: str(value) for name, value in flatten(analysis.design.protocol).items()}
    return options | {"data fingerprint": str(analysis.attributes.get("data_fingerprint", "unknown"))}
