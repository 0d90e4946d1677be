from __future__ import annotations

import pytest

from ablations.urls import hide_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mysql://u:p4ss@h/d", "mysql://u:***@h/d"),
        (
            "run storage=postgresql://u:p@h/d tracking.uri=http://a:b@c",
            "run storage=postgresql://u:***@h/d tracking.uri=http://a:***@c",
        ),
        ("sqlite:///results/optuna.db", "sqlite:///results/optuna.db"),
        ("http://127.0.0.1:5000/#/x", "http://127.0.0.1:5000/#/x"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert hide_passwords(text) == shown
