"""An installed package holds every file of the repository's folder: a wheel is not the checkout."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

import duqsweep

ROOT = Path(duqsweep.__file__).parent.parent
MADE = ("__pycache__",)


@pytest.fixture(scope="module")
def setuptools() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, Any] = settings["tool"]["setuptools"]
    return found


def repository_files() -> set[Path]:
    folder = ROOT / "duqsweep"
    found = {path.relative_to(ROOT) for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not set(MADE) & set(path.parts)}


def test_every_folder_with_modules_is_a_listed_package(setuptools: dict[str, Any]) -> None:
    folders = {".".join(path.parent.parts) for path in repository_files() if path.suffix == ".py"}
    assert folders == set(setuptools["packages"]) - set(setuptools["package-dir"])


def test_every_other_file_is_packaged_data(setuptools: dict[str, Any]) -> None:
    packaged = set()
    for package, patterns in setuptools["package-data"].items():
        folder = ROOT / setuptools["package-dir"].get(package, package.replace(".", "/"))
        for pattern in patterns:
            matched = [path.relative_to(ROOT) for path in folder.glob(pattern)]
            assert matched, f"nothing in {package} matches {pattern}"
            packaged.update(matched)
    assert {path for path in repository_files() if path.suffix != ".py"} <= packaged
