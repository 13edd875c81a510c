"""Passwords given as references stay references, and no password is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from refusing_server import refusing_server

from duqsweep import cli, exit_codes, files
from duqsweep.control.config.compose import as_yaml, load

CONF = Path(__file__).parent / "conf"
SERVER = "http://me:w0rd@127.0.0.1:9"


@pytest.mark.parametrize(
    "uri",
    [
        "${oc.env:SECRET_URI}",
        "http://${oc.env:NOBODY,${oc.env:SECRET_USER}}:${oc.env:SECRET_WORD}@127.0.0.1:9",
        "${storage.url}",
        "${.name}:${..storage.url}",
    ],
)
def test_a_value_that_comes_from_the_environment_stays_a_reference(uri, monkeypatch) -> None:
    monkeypatch.setenv("SECRET_URI", SERVER)
    monkeypatch.setenv("SECRET_USER", "me")
    monkeypatch.setenv("SECRET_WORD", "w0rd")
    words = ["+sweep=smoke", "storage.url=${oc.env:SECRET_URI}", f"tracking.uri='{uri}'"]
    config = load(words)
    assert "w0rd" in config.tracking.uri
    text = as_yaml(config)
    assert "w0rd" not in text
    assert OmegaConf.create(text).tracking.uri == config.tracking.uri


@pytest.fixture(scope="module")
def out_of_order() -> Iterator[str]:
    with refusing_server() as server:
        yield server.uri


@pytest.mark.parametrize("literal", [True, False], ids=["literal", "from the environment"])
def test_a_password_is_in_no_file_that_others_read_and_in_no_output(
    literal, out_of_order, broken_checkpoint, tmp_path: Path, capfd, monkeypatch
) -> None:
    monkeypatch.setenv("SECRET_URI", out_of_order)
    uri = out_of_order if literal else "${oc.env:SECRET_URI}"
    folder = tmp_path / "sweep"
    where = [f"dir={folder}", f"policy.checkpoint={broken_checkpoint}", "tracking=server"]
    words = ["+sweep=tiny", "--config-dir", str(CONF), *where, f"tracking.uri={uri}"]
    assert cli.main(words) == exit_codes.FAILED_TRIALS
    assert cli.main(["sync", str(folder)]) == exit_codes.ERROR
    assert cli.main([*words, "--cfg", "job"]) == exit_codes.OK
    assert "w0rd" not in "".join(capfd.readouterr())
    holding = [p for p in folder.rglob("*") if p.is_file() and b"w0rd" in p.read_bytes()]
    if literal:
        assert holding == [folder / files.SWEEP_YAML]
        assert holding[0].stat().st_mode & 0o777 == 0o600
    else:
        assert holding == []
        assert "uri: ${oc.env:SECRET_URI}" in (folder / files.SWEEP_YAML).read_text()
