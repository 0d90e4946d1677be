"""A study in a PostgreSQL database and on an MLflow server that several users and machines share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations import analyze, cli
from ablations.run import PURPOSE, run
from ablations.storage.cell_states import CellState
from ablations.storage.study import open_store
from tests.conftest import TINY
from tests.servers import PASSWORD, QUOTED_PASSWORD, Cluster, MlflowServer
from tests.wording import worded

STUDY = "central"
TOKEN = "t0ken-of-mine"


def test_a_study_on_central_servers_survives_a_restart_of_its_database(
    cluster: Cluster, server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = cluster.new_database()
    tracked = server.uri.replace("://", f"://{TOKEN}@")
    places = [f"storage={storage}", f"tracking.uri={tracked}", f"study={STUDY}"]
    here, there = [[*TINY, *places, "weights=off", f"results_dir={tmp_path / name}"] for name in ("here", "there")]

    with subprocess.Popen(
        [sys.executable, "-u", "-m", "ablations.run", *here], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if "[1/6]" in line:
                # With other folders, like another machine.
                assert cli.main("run", PURPOSE, run, there) == 2
                cluster.stop()
                cluster.start()
                break
        rest, errors = process.communicate(timeout=300)
    printed += rest
    assert (process.returncode, errors) == (0, ""), printed
    second = capsys.readouterr()
    assert worded("lock.held", process=process.pid) in second.err

    store = open_store(storage, STUDY, create=False)
    assert [cell.state for cell in store.cells()] == [CellState.FINISHED] * 6
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    assert len({run.data.tags.get("cell") for run in runs}) == len(runs) == 7
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "cell" not in run.data.tags]
    assert {"figures", "report.md"} <= {info.path for info in client.list_artifacts(parent.info.run_id)}

    # Another machine makes the report from the servers' data.
    assert cli.main("analyze", analyze.PURPOSE, analyze.analyze, [*there, "figures=[forest,variants]"]) == 0
    assert (tmp_path / "there" / STUDY / "figures" / "variants.csv").exists()

    outputs = [printed, second.out, second.err, *capsys.readouterr(), str(store.attributes), str(runs)]
    outputs += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    outputs += [path.read_bytes().decode("latin-1") for path in server.folder.rglob("*") if path.is_file()]
    for secret in (PASSWORD, QUOTED_PASSWORD, TOKEN):
        assert not [text[:200] for text in outputs if secret in text]
