"""MLflow's empty tables, kept for new databases: it takes 2 CPU seconds to make them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from duqsweep import private

SQLITE = "sqlite:///"


def database_path(uri: str) -> Path | None:
    """The file of a SQLite database; None where the tracking URI is another kind of place."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def kept_tables() -> Path:
    """Where the tables of the installed MLflow are kept; they need not be there."""
    return private.cache_folder("mlflow") / f"tables-{version('mlflow')}.db"


def copy_tables(kept: Path, database: Path) -> None:
    """Begin a database that is not there yet with the kept tables.

    Where that is not possible, nothing is done: MLflow then makes them, or says what is wrong.
    """
    new = database.with_name(f".{database.name}.{os.getpid()}")
    try:
        with suppress(OSError):
            shutil.copyfile(kept, new)
            if _is_whole(new):
                os.link(new, database)  # fails where another process was faster
            else:
                kept.unlink()
    finally:
        with suppress(OSError):
            new.unlink()


def keep_tables(database: Path, kept: Path) -> None:
    """Keep the tables of a database that MLflow has just made, if nothing stands in them yet.

    The experiment that each new database has is left out, since it names the database's place:
    MLflow adds it anew.
    """
    new = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        with suppress(OSError, sqlite3.Error):
            with closing(sqlite3.connect(database)) as one, closing(sqlite3.connect(new)) as other:
                one.backup(other)
                experiments = other.execute("SELECT name FROM experiments").fetchall()
                runs = other.execute("SELECT count(*) FROM runs").fetchall()
                if (experiments, runs) != ([("Default",)], [(0,)]):
                    return
                other.execute("DELETE FROM experiments")
                other.commit()
            new.replace(kept)
    finally:
        with suppress(OSError):
            new.unlink()


def _is_whole(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(database)) as one:
            return one.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    except sqlite3.DatabaseError:
        return False
