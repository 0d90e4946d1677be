"""MLflow as a mirror of what is stored."""

from typing import Any


def open_tracker(config: Any, design: Any, study_id: str, console: Any) -> Any:
    from ablations.tracking.base import NoTracker

    if not config.tracking.enabled:
        return NoTracker()
    from pathlib import Path

    from ablations.storage.folder import results_folder, tracking_uri

    uri = tracking_uri(config)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        console.print("Making the MLflow store, once; this takes some seconds.")
    from ablations.tracking.tracker import Tracker

    return Tracker(uri, design, study_id, results_folder(config) / "mlflow-artifacts" / design.study)
