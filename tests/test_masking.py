"""Secrets do not show in addresses."""

from __future__ import annotations

import pytest

from duqsweep.masking import masked, without_user


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@db:5432/x", "postgresql://me:***@db:5432/x"),
        ("postgresql+psycopg2://me:se@cr:e/t@db/x", "postgresql+psycopg2://me:***@db/x"),
        ("https://dapi123@host/api", "https://***@host/api"),
        ("http://:secret@host", "http://:***@host"),
        ("mysql://db/x?user=me&password=secret&ssl=1", "mysql://db/x?user=me&password=***&ssl=1"),
        ("https://h/?api_token=secret", "https://h/?api_token=***"),
        ("sqlite:////data/a@b/study.db", "sqlite:////data/a@b/study.db"),
        ("http://host:5000", "http://host:5000"),
        ("--export=ALL,WANDB_API_KEY=secret,X=1", "--export=ALL,WANDB_API_KEY=***,X=1"),
        ("export HF_TOKEN='se cr;et'; cd x", "export HF_TOKEN=***; cd x"),
        ("MONKEY_BARS=3 KEYS", "MONKEY_BARS=*** KEYS"),  # rather one too many
    ],
)
def test_passwords_and_tokens_are_masked(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_what_mlflow_takes_from_the_environment_is_masked(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0k3n")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "w0rd")
    assert masked("401: no user t0k3n with w0rd") == "401: no user *** with ***"


def test_a_link_holds_neither_user_nor_password() -> None:
    assert without_user("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_user("https://host/x") == "https://host/x"
