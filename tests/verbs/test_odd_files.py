"""Damaged files of a sweep, and databases of MLflow: each verb says so in one line."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from duqsweep import cli, exit_codes, files

CONF = Path(__file__).parent / "conf"
TRIAL = f"{files.TRIALS_DIR}/0000"
SWEEP = "the sweep again"
VERBS = {
    "status": [],
    "front": [],
    "confirm": ["--episodes", "1", "--trials", "0"],
    "retry": [],
    "export": ["--trial", "0"],
    "sync": [],
}

# A file → the verbs that read it, the sweep itself among them.
READERS = {
    files.STUDY_LOG: [SWEEP],
    files.IDENTITY_JSON: [SWEEP, "status", "confirm"],
    files.LEDGER_JSON: [SWEEP],
    files.SIMULATOR_JSON: [SWEEP, "status", "confirm"],
    files.FRONT_JSON: [SWEEP, "sync"],
    files.TRACKING_JSON: ["sync"],
    files.SWEEP_YAML: [SWEEP, "status"],
    f"{TRIAL}/{files.SPEC_JSON}": ["status", "export"],
    f"{TRIAL}/{files.EPISODES_JSONL}": ["front"],
    f"{TRIAL}/{files.FAILURES_JSONL}": ["status", "retry"],
    f"{TRIAL}/{files.JOB_JSON}": ["status"],
    f"{TRIAL}/{files.STATE_JSON}": ["status"],
}
# Contents of a damaged file; an identity with other keys is that of an older version.
CONTENTS = {"torn": b'{"key": 1\n', "null": b"null\n", "other keys": b"{}\n", "binary": b"\xff\n"}
# The sweep makes these again from what else is there; see tests/control/test_odd_trials.py.
REPAIRED = (
    files.FRONT_JSON,
    files.SWEEP_YAML,
    files.STUDY_LOG,
    files.IDENTITY_JSON,
    files.LEDGER_JSON,
    files.SIMULATOR_JSON,
)


@pytest.fixture(scope="module")
def command(broken_checkpoint: Path) -> Callable[[str, Path], int]:
    """Run a verb on a folder; the policy has no weights, so that no trial takes long."""

    def run(verb: str, folder: Path) -> int:
        if verb != SWEEP:
            return cli.main([verb, str(folder), *VERBS[verb]])
        where = [f"dir={folder}", f"policy.checkpoint={broken_checkpoint}"]
        return cli.main(["+sweep=tiny", "--config-dir", str(CONF), *where])

    return run


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, command) -> Path:
    """A sweep that has ended."""
    folder: Path = tmp_path_factory.mktemp("ended") / "sweep"
    assert command(SWEEP, folder) == exit_codes.FAILED_TRIALS
    shutil.rmtree(folder / files.CACHE_DIR)
    return folder


@pytest.fixture
def sweep(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(template, tmp_path / "sweep"))


def state(folder: Path) -> dict[Path, bytes]:
    """What is in its files; locks are left behind."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".tracking.lock"
    }


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(("name", "verb"), [(n, v) for n, verbs in READERS.items() for v in verbs])
def test_a_damaged_file_is_named_in_one_line(
    name, verb, content, sweep, command, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("duqsweep.control.tracking.mlflow_client.import_client", _unreached)
    (sweep / name).write_bytes(CONTENTS[content])
    before = state(sweep)
    code = command(verb, sweep)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if verb == SWEEP and code == exit_codes.FAILED_TRIALS:  # as before
        assert name in REPAIRED
        assert (sweep / name).read_bytes() != CONTENTS[content]
    elif code != exit_codes.OK:
        assert code in (exit_codes.ERROR, exit_codes.CONFIG)
        assert err.startswith("duqsweep: ")
        assert err.count("\n") == 1
        assert Path(name).name in err or "an older duqsweep" in err
        assert state(sweep) == before


def _unreached() -> None:
    raise AssertionError("the damage must be found before MLflow is asked")


@pytest.mark.parametrize("name", ["", files.TRIALS_DIR, TRIAL, f"{TRIAL}/{files.EPISODES_JSONL}"])
@pytest.mark.parametrize("verb", ["status", "retry", SWEEP])
def test_a_symbolic_link_to_itself_is_no_traceback(name, verb, sweep, command, capsys) -> None:
    path = sweep / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(path.name)
    code = command(verb, sweep)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert code in (exit_codes.OK, exit_codes.ERROR, exit_codes.CONFIG)
    if code != exit_codes.OK:
        assert err.startswith("duqsweep: ")
        assert err.count("\n") == 1


def newer_schema(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)")
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")


@pytest.mark.parametrize(
    ("make", "reason", "code"),
    [
        (newer_schema, "'ffffffffffff'", exit_codes.ERROR),
        (lambda path: path.write_bytes(b"garbage" * 1000), "not a database", exit_codes.CONFIG),
        (lambda path: path.symlink_to(path.name), "unable to open", exit_codes.CONFIG),
        (Path.mkdir, "unable to open", exit_codes.CONFIG),
    ],
    ids=["of another schema", "no database", "a link to itself", "a folder"],
)
def test_a_database_that_cannot_take_the_copy_is_named(make, reason, code, sweep, capsys) -> None:
    make(sweep / files.MLFLOW_DB)
    assert cli.main(["sync", str(sweep)]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"duqsweep: MLflow at sqlite:///{sweep / files.MLFLOW_DB} cannot take")
    assert reason in err
    assert err.count("\n") == 1


@pytest.mark.fault(
    "MLflow's database in the sweep's folder damaged",
    "one line says what to delete and that `sync` follows",
)
@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_a_damaged_database_is_named_with_what_to_do(sweep: Path, capsys) -> None:
    database = sweep / files.MLFLOW_DB
    assert cli.main(["sync", str(sweep)]) == exit_codes.OK
    pages = database.read_bytes()
    database.write_bytes(pages[:4096] + b"\xff" * (len(pages) - 4096))
    capsys.readouterr()
    assert cli.main(["sync", str(sweep)]) == exit_codes.CONFIG
    err = capsys.readouterr().err
    assert err.endswith(f"malformed: delete {database} and sync again\n")
    assert err.count("\n") == 1
