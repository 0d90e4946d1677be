"""The options of what MLflow keeps."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.option import option


@dataclass
class TrackingConfig:
    """Where MLflow keeps what people browse."""

    enabled: bool = option(True, "Whether to mirror the study to MLflow.")
    uri: str = option("", "MLflow tracking URI; a SQLite file in results_dir where it is empty.")
