from __future__ import annotations

import pytest

from ablations.common.urls import hide_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://u:p4ss@h/d", "mysql://u:***@h/d"),
        (
            "run storage=postgresql://u:p@h/d tracking.uri=http://a:b@c",
            "run storage=postgresql://u:***@h/d tracking.uri=http://***@c",
        ),
        ("postgresql+psycopg2://:p4ss@h/d", "postgresql+psycopg2://:***@h/d"),  # without a user
        ("postgresql://me@h:5432/d", "postgresql://me@h:5432/d"),  # without a password
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),  # not percent-encoded
        ("postgresql://u:p/a:ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p%40ss@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p&sslmode=require", "postgresql://h/d?user=u&password=***&sslmode=require"),
        ("postgresql://h/d?sslpassword=p%20q", "postgresql://h/d?sslpassword=***"),
        ("https://dapi0123@host/x", "https://***@host/x"),  # a token
        ("https://host/x?access_token=abc#y", "https://host/x?access_token=***#y"),
        ("https://host/x?X-Amz-Signature=abc&n=1", "https://host/x?X-Amz-Signature=***&n=1"),
        ("storage='mysql://u:p4ss@h/d' study=x", "storage='mysql://u:***@h/d' study=x"),
        ("invalid dsn: host=h password=p4ss user=u", "invalid dsn: host=h password=*** user=u"),
        ("{'user': 'u', 'password': 'p4ss'}", "{'user': 'u', 'password': '***'}"),
        ("sqlite:///results/optuna.db", "sqlite:///results/optuna.db"),
        ("http://host:5000/x?by=a@b", "http://host:5000/x?by=a@b"),
        ("http://127.0.0.1:5000/#/x", "http://127.0.0.1:5000/#/x"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown


def test_what_a_driver_tears_out_of_a_url_is_hidden_too() -> None:
    url = "postgresql://u:p4ss@w0rd@h/d"  # of which drivers take `w0rd@h` to be the host
    said = 'could not translate host name "w0rd@h" to address; the password p4ss@w0rd was not tried'
    shown = hide_passwords(said, url)
    assert "w0rd" not in shown
    assert "p4ss" not in shown
    assert hide_passwords("no route to h; d is not there", url) == "no route to h; d is not there"
