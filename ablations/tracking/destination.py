"""The MLflow destination of a study or benchmark, from options, MLflow's environment variables, or defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import quote

from ablations.common.errors import UsageError
from ablations.common.urls import hide_passwords
from ablations.config import Config
from ablations.storage.database import check_url
from ablations.storage.paths import ARTIFACTS, own_database, results_folder

# MLflow reads its other variables (user name, password, token, TLS) itself.
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
URI_OPTION, EXPERIMENT_OPTION = "tracking.uri", "tracking.experiment"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_DATABRICKS = ("databricks", "databricks-uc", "uc")


@dataclass(frozen=True)
class Destination:
    """A place in an MLflow store.

    Attributes:
        uri: of the store, as given.
        experiment: name of the experiment.
        artifacts: folder of the experiment's artifacts if the store is a database or a folder; unused otherwise.
        uri_from: option or variable of the URI, for messages.
        experiment_from: option or variable of the experiment; empty if it has the study's name.
        has_models: whether kept networks are logged as models.
        registered: registered model that they become versions of; empty for none.
    """

    uri: str
    experiment: str
    artifacts: Path
    uri_from: str = URI_OPTION
    experiment_from: str = ""
    has_models: bool = False
    registered: str = ""

    @property
    def is_database(self) -> bool:
        """Whether the store is a database that this process opens."""
        return _scheme(self.uri) in _DATABASES

    @property
    def is_server(self) -> bool:
        """Whether the URI is of a server, as opposed to files of this process."""
        return _scheme(self.uri) in _DATABRICKS or ("://" in self.uri and not self.uri.startswith(("sqlite", "file:")))

    @property
    def has_own_artifacts(self) -> bool:
        """Whether the store determines the artifact location: an MLflow server, Databricks, a plugin's store."""
        return self.is_server and not self.is_database

    @property
    def sentence(self) -> str:
        """A sentence with the destination and the environment variables that determine it."""
        by_variable = f" ({URI_VARIABLE})" if self.uri_from == URI_VARIABLE else ""
        named = f" ({EXPERIMENT_VARIABLE})" if self.experiment_from == EXPERIMENT_VARIABLE else ""
        uri = hide_passwords(self.uri)
        return f"Logging to MLflow at {uri}{by_variable}, experiment {self.experiment}{named}."

    def refusal(self, reason: str) -> UsageError:
        """Returns the error for an unusable store, with the option or variable that names it."""
        return UsageError(self.uri_from, hide_passwords(self.uri), reason)


def destination_of(config: Config, name: str) -> Destination:
    """Returns the destination of a study or benchmark.

    `tracking.uri` and `tracking.experiment` have priority over the variables `MLFLOW_TRACKING_URI` and
    `MLFLOW_EXPERIMENT_NAME`; the default is `mlflow.db` in `results_dir`, and an experiment with the study's name.

    Raises:
        UsageError: if MLflow does not support the URI's scheme, or `tracking.register` is not possible.
        StorageError: as `check_url`.
    """
    uri, uri_from = _first((config.tracking.uri, URI_OPTION), (os.environ.get(URI_VARIABLE, ""), URI_VARIABLE))
    experiment, experiment_from = _first(
        (config.tracking.experiment, EXPERIMENT_OPTION), (os.environ.get(EXPERIMENT_VARIABLE, ""), EXPERIMENT_VARIABLE)
    )
    if uri:
        _check(uri, uri_from)
    # A study's name is a valid folder name; an experiment's may be a path.
    folder = quote(experiment, safe=" ").replace(".", "%2E") if experiment else name
    return Destination(
        uri or own_database(config, "mlflow.db"),
        experiment or name,
        results_folder(config) / ARTIFACTS / folder,
        uri_from or URI_OPTION,
        experiment_from,
        config.tracking.models,
        _registered(config),
    )


def _registered(config: Config) -> str:
    """Returns the registered model's name; raises UsageError if it is invalid or there are no networks to register."""
    name = config.tracking.register.strip()
    if not name:
        return ""
    if any(sign in name for sign in "/:'"):
        raise UsageError("tracking.register", name, "must not contain '/', ':' or quotes")
    lacking = {
        "tracking.enabled=false": not config.tracking.enabled,
        "tracking.models=false": not config.tracking.models,
    }
    lacking["weights=off"] = config.weights == "off"
    for setting, is_given in lacking.items():
        if is_given:
            raise UsageError("tracking.register", name, f"has nothing to register with {setting}")
    return name


def _first(*candidates: tuple[str, str]) -> tuple[str, str]:
    """Returns the first nonempty value with its origin."""
    return next(((value.strip(), origin) for value, origin in candidates if value.strip()), ("", ""))


def _check(uri: str, origin: str) -> None:
    scheme, is_url, _ = uri.partition("://")
    if _scheme(uri) in _DATABASES:
        check_url(origin, uri)
        return
    plugins = [entry.name for entry in entry_points(group="mlflow.tracking_store")]
    if is_url and scheme not in ("http", "https", "file", *_DATABRICKS, *plugins):
        kinds = [f"{one}://" for one in (*_DATABASES, "http", "https", "file", "databricks")]
        raise UsageError(origin, uri, "has an unsupported scheme", kinds)


def _scheme(uri: str) -> str:
    """Returns the scheme without a driver: `postgresql` for `postgresql+psycopg://...`."""
    return uri.partition(":")[0].partition("+")[0]
