"""`sync` writes to the sweep's own tracking server, or nowhere."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from refusing_server import refusing_server

from duqsweep import cli, exit_codes, files
from duqsweep.control.tracking import mirror, mlflow_client

CONF = Path(__file__).parent / "conf"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, broken_checkpoint: Path) -> Path:
    """A sweep whose server was out of order, and is gone."""
    folder = tmp_path_factory.mktemp("server") / "sweep"
    where = [f"dir={folder}", f"policy.checkpoint={broken_checkpoint}", "tracking=server"]
    with refusing_server() as server:
        words = ["+sweep=tiny", "--config-dir", str(CONF), *where, f"tracking.uri={server.uri}"]
        assert cli.main(words) == exit_codes.FAILED_TRIALS
    return folder


@pytest.fixture
def sweep(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(template, tmp_path / "sweep"))


def test_the_catch_up_goes_to_the_server_of_the_sweep(sweep, capsys):
    assert cli.main(["sync", str(sweep)]) == exit_codes.CONFIG
    err = capsys.readouterr().err
    assert "127.0.0.1" in err
    assert "w0rd" not in err
    assert not (sweep / files.MLFLOW_DB).exists()


def test_a_copy_elsewhere_is_only_made_when_it_is_named(sweep, capsys, monkeypatch):
    path = sweep / files.SWEEP_YAML
    path.write_text(re.sub("uri: http.*", "uri: null", path.read_text()))
    assert cli.main(["sync", str(sweep)]) == exit_codes.CONFIG
    assert "tracking=server needs tracking.uri" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    assert cli.main(["sync", str(sweep)]) == exit_codes.CONFIG
    err = capsys.readouterr().err
    assert re.search(r"goes to http://me:\*\*\*@127.0.0.1:\d+, not to http://elsewhere:5000", err)
    asked = []
    monkeypatch.setattr(mirror, "mirror", lambda folder, uri: asked.append(uri) or 2)
    local = mlflow_client.default_uri(sweep)
    assert cli.main(["sync", str(sweep), "--uri", local]) == exit_codes.OK
    assert asked == [local]
