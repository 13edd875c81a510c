"""A database of MLflow that begins with kept tables is as one that MLflow made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from duqsweep.control.tracking.mlflow_client import open_client
from duqsweep.control.tracking.tables import copy_tables, keep_tables, kept_tables

# MLflow 3.17 uses what SQLAlchemy 2.1 calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def opened(database: Path) -> Any:
    return open_client(f"sqlite:///{database}")


def content(database: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(database)) as one:
        tables = dict(one.execute("SELECT name, sql FROM sqlite_master").fetchall())
        names = [name for name, sql in tables.items() if sql and sql.startswith("CREATE TABLE")]
        rows = {name: one.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}
    return {"tables": tables, "rows": {**rows, "experiments": len(rows["experiments"])}}


def test_the_second_database_has_what_the_first_has_and_its_own_place(tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "other" / "second.db"
    second.parent.mkdir()
    assert not kept_tables().exists()
    opened(first).search_experiments()
    assert kept_tables().exists()
    made = second.parent / "made.db"
    copy_tables(kept_tables(), made)
    assert content(made)["rows"]["experiments"] == 0
    client = opened(second)
    (default,) = client.search_experiments()
    assert (default.experiment_id, default.name) == ("0", "Default")
    assert content(second) == content(first)
    assert client.create_experiment("mine") == "1"
    assert sorted(path.name for path in second.parent.iterdir()) == ["made.db", "second.db"]


def test_a_database_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    database = tmp_path / "mine.db"
    database.write_bytes(b"mine")
    copy_tables(kept_tables(), database)
    assert database.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [database]


def test_tables_in_which_something_stands_are_not_kept(tmp_path: Path) -> None:
    database, kept = tmp_path / "mine.db", tmp_path / "kept.db"
    opened(database).create_experiment("mine")
    keep_tables(database, kept)
    assert list(tmp_path.iterdir()) == [database]


@pytest.mark.parametrize("cut", [0.5, 0])
def test_damaged_tables_are_made_anew(tmp_path: Path, cut: float) -> None:
    kept, whole = kept_tables(), kept_tables().read_bytes()
    kept.write_bytes(whole[: int(len(whole) * cut)] or b"no database")
    opened(tmp_path / "mine.db").search_experiments()
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.db"]
    assert content(kept)["rows"]["experiments"] == 0
    assert content(tmp_path / "mine.db")["rows"]["experiments"] == 1
