"""A tracking server that refuses: at a sweep's first start, later, and for `sync`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from refusing_server import OUT_OF_ORDER, RefusingServer, refusing_server

from duqsweep import cli, exit_codes

CONF = Path(__file__).parent / "conf"
REFUSALS = {
    200: "no MLflow at this address",
    302: "sends to another address",
    401: "MLFLOW_TRACKING_USERNAME",
    403: "access is forbidden",
    404: "no MLflow at this address",
}


@pytest.fixture(scope="module")
def server() -> Iterator[RefusingServer]:
    with refusing_server() as server:
        yield server


@pytest.fixture(autouse=True)
def ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def tiny(folder: Path, checkpoint: Path, uri: str) -> list[str]:
    where = [f"dir={folder}", f"policy.checkpoint={checkpoint}"]
    tracking = ["tracking=server", f"tracking.uri={uri}"]
    return ["+sweep=tiny", "--config-dir", str(CONF), *where, *tracking]


@pytest.fixture(scope="module")
def begun(
    server: RefusingServer, tmp_path_factory: pytest.TempPathFactory, broken_checkpoint: Path
) -> Path:
    """A sweep that began, and ended, while its server was out of order."""
    folder = tmp_path_factory.mktemp("begun") / "sweep"
    server.code = OUT_OF_ORDER
    assert cli.main(tiny(folder, broken_checkpoint, server.uri)) == exit_codes.FAILED_TRIALS
    return folder


@pytest.mark.parametrize("code", REFUSALS)
def test_no_sweep_begins_under_a_server_that_refuses(
    code, server, tmp_path, broken_checkpoint, capsys
):
    server.code = code
    words = tiny(tmp_path / "new", broken_checkpoint, server.uri)
    assert cli.main(words) == exit_codes.CONFIG
    err = capsys.readouterr().err
    assert err.startswith("duqsweep: MLflow at http://me:***@127.0.0.1:")
    assert REFUSALS[code] in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://127.0.0.1:9", "nothing listens there"),
        ("http://no-such-host.invalid:5000", "there is no such host"),
        ("sqlite:////dev/null/mlflow.db", "unable to open"),
    ],
)
def test_no_sweep_begins_where_mlflow_cannot_be(uri, why, tmp_path, broken_checkpoint, capsys):
    assert cli.main(tiny(tmp_path / "new", broken_checkpoint, uri)) == exit_codes.CONFIG
    assert why in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_sweep_that_has_begun_goes_on_while_its_server_refuses(
    begun, server, tmp_path, broken_checkpoint, capsys
):
    server.code = 403
    words = tiny(begun, broken_checkpoint, server.uri)
    assert cli.main(words) == exit_codes.FAILED_TRIALS
    assert "MLflow lacks part of this sweep" in capsys.readouterr().out


@pytest.mark.parametrize("code", [*REFUSALS, OUT_OF_ORDER])
def test_sync_says_in_one_line_who_refuses(code, begun, server, tmp_path, capsys):
    server.code = code
    for_good = exit_codes.CONFIG if code in REFUSALS else exit_codes.ERROR
    folder = Path(shutil.copytree(begun, tmp_path / "sweep"))
    assert cli.main(["sync", str(folder)]) == for_good
    err = capsys.readouterr().err
    assert err.startswith("duqsweep: MLflow at http://me:***@127.0.0.1:")
    assert err.count("\n") == 1
    assert "w0rd" not in err
