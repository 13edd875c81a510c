"""Addresses of databases: what is wrong with one is said before a file appears elsewhere."""

from __future__ import annotations

from pathlib import Path

from duqsweep.errors import ConfigError
from duqsweep.masking import masked


def check_sqlite(url: str, key: str) -> None:
    """Raise ConfigError for a SQLite address whose path ends early.

    `?` begins the options of an address and `#` its fragment. In a folder's name they would send
    the database to another file.

    Args:
        url: Any address; only SQLite's are checked.
        key: The setting that it comes from.
    """
    if not url.startswith("sqlite"):
        return
    _, asked, options = url.partition("?")
    if "#" in url or (asked and ("=" not in options or "/" in options)):
        raise ConfigError(
            f"{key} must hold neither # nor ? in its path, where the address would end: got "
            f"{masked(url)}"
        )


def check_folder(directory: Path) -> None:
    """Raise ConfigError when MLflow's database cannot lie in the sweep's folder."""
    if {"?", "#"} & set(str(directory)):
        raise ConfigError(
            f"MLflow's database cannot lie in a folder with ? or # in its name, got {directory}: "
            "set another dir=FOLDER, tracking.uri=sqlite:///FILE or tracking=none"
        )
