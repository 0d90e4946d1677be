from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.common.surroundings import bypass_proxies

# Writes the environment of a verb, after its preparation, to a file.
PREPARED = """
import getpass, json, os, sys, warnings
from ablations.common.surroundings import prepare_verb
prepare_verb()
warnings.warn("one library warns another", stacklevel=1)
observed = {
    "argument": sys.argv[1], "user": getpass.getuser(), "utf8": sys.flags.utf8_mode, "stdout": sys.stdout.encoding,
    "default": open(os.devnull).encoding, "warnings": os.environ.get("PYTHONWARNINGS"), "options": sys.warnoptions,
    "descriptors": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
}
print(chr(215))
with open(sys.argv[2], "w") as file:
    json.dump(observed, file)
"""


def prepared(
    path: Path, environment: Mapping[str, str], argument: str = "Größe", shell: str = ""
) -> tuple[dict[str, Any], bytes]:
    """Returns the environment and the output of a prepared process; `shell` closes its streams."""
    typed = [sys.executable, "-c", PREPARED, argument, str(path)]
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" "$@" {shell}', *typed],
        capture_output=True,
        check=False,
        input=b"",
        env=kept | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8")), done.stdout


def test_a_locale_that_is_not_utf8_only_affects_output(tmp_path: Path) -> None:
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    observed, printed = prepared(tmp_path / "observed", ascii_locale)
    assert (observed["argument"], observed["default"]) == ("Größe", "utf-8")
    assert (observed["stdout"], printed) == ("ascii", b"?\n")


def test_a_utf8_locale_does_not_restart_the_process(tmp_path: Path) -> None:
    observed, printed = prepared(tmp_path / "observed", {"LC_ALL": "C.UTF-8"})
    assert (observed["argument"], observed["utf8"], printed) == ("Größe", 0, "×\n".encode())


def test_a_configured_encoding_of_output_is_kept(tmp_path: Path) -> None:
    environment = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}
    assert prepared(tmp_path / "observed", environment)[1] == "×\n".encode("latin-1")
    assert prepared(tmp_path / "observed", environment | {"PYTHONIOENCODING": "ascii"})[1] == b"?\n"


@pytest.mark.parametrize("value", ["error", "error::UserWarning", "ignore,error"])
def test_warnings_are_not_turned_into_errors(tmp_path: Path, value: str) -> None:
    observed, _ = prepared(tmp_path / "observed", {"PYTHONWARNINGS": value})
    assert observed["warnings"] is None
    assert not any(option.startswith("error") for option in observed["options"])


@pytest.mark.parametrize(
    ("shell", "closed"), [("<&-", {0}), (">&-", {1}), ("2>&-", {2}), ("<&- >&-", {0, 1}), ("<&- >&- 2>&-", {0, 1, 2})]
)
def test_closed_streams_are_replaced_by_the_null_device(tmp_path: Path, shell: str, closed: set[int]) -> None:
    observed, _ = prepared(tmp_path / "observed", {}, shell=shell)
    descriptors = observed["descriptors"]
    assert {number for number in range(3) if descriptors[number] == os.devnull} == closed


PROXIED = {"http_proxy": "http://127.0.0.1:9"}
HOSTS = st.lists(st.sampled_from(["example.org", ".example.org", "10.0.0.0/8", "localhost", "127.0.0.1"]))


@given(lower=HOSTS, upper=HOSTS)
def test_local_servers_bypass_proxies_and_other_exemptions_are_kept(lower: list[str], upper: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, hosts in (("no_proxy", lower), ("NO_PROXY", upper)):
            patch.setenv(name, ",".join(hosts))
        patch.setenv(*next(iter(PROXIED.items())))
        bypass_proxies()
        exempt = os.environ["no_proxy"].split(",")
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
        assert {"127.0.0.1", "localhost", "::1", *(lower or upper)} == set(exempt)
        before = dict(os.environ)
        bypass_proxies()
        assert dict(os.environ) == before


def test_without_a_proxy_the_environment_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    bypass_proxies()
    assert dict(os.environ) == before


def test_an_exemption_of_all_hosts_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    bypass_proxies()
    assert os.environ["no_proxy"] == "*"
