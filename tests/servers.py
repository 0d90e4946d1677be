"""Real servers for tests, on the loopback interface and in temporary folders: PostgreSQL and MLflow."""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "pa55/w@rd"  # of which a URL has to escape two characters
QUOTED_PASSWORD = "pa55%2Fw%40rd"
MLFLOW_USER, MLFLOW_PASSWORD = "me", "0pen/s@me of MLflow"
# A password that was right is kept for an hour: hashing it takes longer than what most requests ask for.
_BASIC_AUTH = f"""[mlflow]
default_permission = READ
database_uri = sqlite:///{{folder}}/auth.db
admin_username = {MLFLOW_USER}
admin_password = {MLFLOW_PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 3600
"""


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Cluster:
    """A PostgreSQL cluster of the system's own programs."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs, self.port = folder, programs, free_port()
        # PostgreSQL refuses to be run by root.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._do("initdb", "--no-sync", "-U", "me", "-A", "scram-sha-256", f"--pwfile={secret}", "-D", self._data)
        self._made = 0

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        self._do("pg_ctl", "-D", self._data, "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stops it as a crash would: nobody is told."""
        self._do("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://me:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Makes a database and returns its URL."""
        self._made += 1
        name = f"suite{self._made}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        psycopg2 = pytest.importorskip("psycopg2")
        with closing(psycopg2.connect(self.url())) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []

    def _do(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL, **self._user
        )


@contextmanager
def postgres() -> Iterator[Cluster]:
    """A running cluster; whoever wants one is skipped where there is no PostgreSQL."""
    pytest.importorskip("psycopg2", reason="needs psycopg2; not installed here")
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)]
    programs = [Path(path).parent for path in found if path]
    if not programs:
        pytest.skip("needs PostgreSQL's initdb and pg_ctl; not installed here")
    if os.getuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL refuses to be run by root, and there is no user postgres here")
    folder = Path(tempfile.mkdtemp(prefix="cluster"))
    try:
        cluster = Cluster(folder, programs[0])
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class MlflowServer:
    """`mlflow server --app-name basic-auth` with a SQLite file behind it, which can die and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "basic_auth.ini").write_text(_BASIC_AUTH.format(folder=folder))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
             "--workers", "1", "--app-name", "basic-auth",
             "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}",
             "--artifacts-destination", str(self.folder / "artifacts")],
            stdout=(self.folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test",
            },
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Lets it accept and not answer any more."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def mlflow_server() -> Iterator[MlflowServer]:
    """A running server, whose user name and password this process has in its environment meanwhile."""
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth]; not installed here")
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="mlflow") as folder:
        patch.setenv("MLFLOW_TRACKING_USERNAME", MLFLOW_USER)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", MLFLOW_PASSWORD)
        server = MlflowServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.thaw()
            server.kill()


class Proxy:
    """Stands before a server, and can keep an answer to itself: the request is carried out and never answered.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.requests = 0
        self.swallowed: Callable[[int], bool] = lambda _: False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), closing(client.makefile("rb")) as asked, suppress(OSError):
            while first := asked.readline():
                method, path, _ = first.decode().split()
                headers = {}
                while (line := asked.readline().decode()) != "\r\n":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = asked.read(int(headers.get("content-length", 0)))
                self.requests += 1
                swallowed = self.swallowed(self.requests)
                with closing(http.client.HTTPConnection("127.0.0.1", self._upstream)) as onward:
                    onward.request(method, path, body, headers)
                    answer = onward.getresponse()
                    content = answer.read()
                if swallowed:
                    return
                head = f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Length: {len(content)}\r\n"
                head += f"Content-Type: {answer.headers['content-type']}\r\n\r\n"
                client.sendall(head.encode() + content)
