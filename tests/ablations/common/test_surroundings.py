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

# What a verb sees of its surroundings, after it was prepared.
PREPARED = """
import getpass, json, os, sys, warnings
from ablations.common.surroundings import prepare_verb
prepare_verb()
warnings.warn("one library warns another", stacklevel=1)
seen = {
    "argument": sys.argv[1], "user": getpass.getuser(), "utf8": sys.flags.utf8_mode, "stdout": sys.stdout.encoding,
    "default": open(os.devnull).encoding, "warnings": os.environ.get("PYTHONWARNINGS"), "options": sys.warnoptions,
    "descriptors": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
}
print(chr(215))
with open(sys.argv[2], "w") as file:
    json.dump(seen, file)
"""


def prepared(
    path: Path, environment: Mapping[str, str], argument: str = "Größe", shell: str = ""
) -> tuple[dict[str, Any], bytes]:
    """Returns what a prepared process sees, and what it printed; `shell` closes its streams."""
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


def test_a_locale_that_is_not_utf8_is_used_for_printing_alone(tmp_path: Path) -> None:
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    seen, printed = prepared(tmp_path / "seen", ascii_locale)
    assert (seen["argument"], seen["default"]) == ("Größe", "utf-8")
    assert (seen["stdout"], printed) == ("ascii", b"?\n")


def test_a_utf8_locale_starts_no_second_process(tmp_path: Path) -> None:
    seen, printed = prepared(tmp_path / "seen", {"LC_ALL": "C.UTF-8"})
    assert (seen["argument"], seen["utf8"], printed) == ("Größe", 0, "×\n".encode())


def test_an_encoding_of_ones_own_for_what_is_printed_is_kept(tmp_path: Path) -> None:
    environment = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"}
    assert prepared(tmp_path / "seen", environment)[1] == "×\n".encode("latin-1")
    assert prepared(tmp_path / "seen", environment | {"PYTHONIOENCODING": "ascii"})[1] == b"?\n"


@pytest.mark.parametrize("value", ["error", "error::UserWarning", "ignore,error"])
def test_warnings_of_libraries_stay_warnings(tmp_path: Path, value: str) -> None:
    seen, _ = prepared(tmp_path / "seen", {"PYTHONWARNINGS": value})
    assert seen["warnings"] is None
    assert not any(option.startswith("error") for option in seen["options"])


@pytest.mark.parametrize(
    ("shell", "closed"), [("<&-", {0}), (">&-", {1}), ("2>&-", {2}), ("<&- >&-", {0, 1}), ("<&- >&- 2>&-", {0, 1, 2})]
)
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path, shell: str, closed: set[int]) -> None:
    seen, _ = prepared(tmp_path / "seen", {}, shell=shell)
    descriptors = seen["descriptors"]
    assert {number for number in range(3) if descriptors[number] == os.devnull} == closed


PROXIED = {"http_proxy": "http://127.0.0.1:9"}
HOSTS = st.lists(st.sampled_from(["example.org", ".example.org", "10.0.0.0/8", "localhost", "127.0.0.1"]))


@given(lower=HOSTS, upper=HOSTS)
def test_servers_of_this_machine_are_reached_past_a_proxy_and_other_exemptions_stay(
    lower: list[str], upper: list[str]
) -> None:
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


def test_without_a_proxy_the_environment_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    bypass_proxies()
    assert dict(os.environ) == before


def test_an_exemption_of_all_hosts_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    bypass_proxies()
    assert os.environ["no_proxy"] == "*"
