"""Where a study or benchmark is logged in MLflow: by options, by the variables of MLflow's clients, or by default."""

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

# MLflow's own names; of the other variables of its clients (user name, password, token, TLS) it takes care itself.
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
URI_OPTION, EXPERIMENT_OPTION = "tracking.uri", "tracking.experiment"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_DATABRICKS = ("databricks", "databricks-uc", "uc")


@dataclass(frozen=True)
class Destination:
    """A place in an MLflow store.

    Attributes:
        uri: of the store, as it was given.
        experiment: name of the experiment.
        artifacts: folder of the experiment's artifacts if the store is a database or a folder; other stores have a
            place of their own.
        uri_from: option or variable that the URI comes from, which messages name.
        experiment_from: likewise of the experiment; empty if it is called like the study.
        has_models: whether kept networks are logged as models.
        registered: registered model that these become versions of; empty for none.
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
        """Whether the store is a database that this process opens itself."""
        return _scheme(self.uri) in _DATABASES

    @property
    def is_server(self) -> bool:
        """Whether a program answers at the URI, as opposed to files that this process reads and writes."""
        return _scheme(self.uri) in _DATABRICKS or ("://" in self.uri and not self.uri.startswith(("sqlite", "file:")))

    @property
    def has_own_artifacts(self) -> bool:
        """Whether the store itself decides where artifacts are: an MLflow server, Databricks, the store of a plugin."""
        return self.is_server and not self.is_database

    @property
    def sentence(self) -> str:
        """Says where the study is logged, and which variables had a say in that."""
        by_variable = f" ({URI_VARIABLE})" if self.uri_from == URI_VARIABLE else ""
        named = f" ({EXPERIMENT_VARIABLE})" if self.experiment_from == EXPERIMENT_VARIABLE else ""
        uri = hide_passwords(self.uri)
        return f"Logging to MLflow at {uri}{by_variable}, experiment {self.experiment}{named}."

    def refusal(self, reason: str) -> UsageError:
        """Returns the error for a store that cannot be used, under the name of the option or variable that named it."""
        return UsageError(self.uri_from, hide_passwords(self.uri), reason)


def destination_of(config: Config, name: str) -> Destination:
    """Returns where a study or benchmark of a name is logged.

    `tracking.uri` and `tracking.experiment` come before the variables `MLFLOW_TRACKING_URI` and
    `MLFLOW_EXPERIMENT_NAME`; without either, the store is `mlflow.db` in `results_dir`, and the experiment has the
    name of the study.

    Raises:
        UsageError: if the URI is of a kind that MLflow does not know, or `tracking.register` cannot be had, or what
            `check_url` raises.
    """
    uri, uri_from = _first((config.tracking.uri, URI_OPTION), (os.environ.get(URI_VARIABLE, ""), URI_VARIABLE))
    experiment, experiment_from = _first(
        (config.tracking.experiment, EXPERIMENT_OPTION), (os.environ.get(EXPERIMENT_VARIABLE, ""), EXPERIMENT_VARIABLE)
    )
    if uri:
        _check(uri, uri_from)
    # A study's name is one of a folder; an experiment's may be a path.
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
    """Returns the name of the registered model; raises UsageError if MLflow refuses it, or there is nothing for it."""
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


def _first(*known: tuple[str, str]) -> tuple[str, str]:
    """Returns the first value that is not empty, with its origin."""
    return next(((value.strip(), origin) for value, origin in known if value.strip()), ("", ""))


def _check(uri: str, origin: str) -> None:
    scheme, is_url, _ = uri.partition("://")
    if _scheme(uri) in _DATABASES:
        check_url(origin, uri)
    elif is_url and scheme not in ("http", "https", "file", *_DATABRICKS, *_plugins()):
        kinds = [f"{one}://" for one in (*_DATABASES, "http", "https", "file", "databricks")]
        raise UsageError(origin, uri, "has an unsupported scheme", kinds)


def _plugins() -> list[str]:
    return [one.name for one in entry_points(group="mlflow.tracking_store")]


def _scheme(uri: str) -> str:
    """Returns `sqlite` of `sqlite:///x.db`, `postgresql` of `postgresql+psycopg://...`, `databricks` of itself."""
    return uri.partition(":")[0].partition("+")[0]
