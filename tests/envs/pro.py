"""LIBERO-PRO's tasks, where they are at hand, and its four suites with them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from duqsweep.control.config.sweep_config import compose
from duqsweep.envs import libero_pro
from duqsweep.envs.asset_files import read_files
from duqsweep.spec import SuiteSpec

SUITES = tuple(libero_pro.PRO_SUITES)


def find_pro_files() -> Path:
    """$DUQSWEEP_LIBERO_PRO, or where `make setup LIBERO=1` puts them."""
    named = os.environ.get("DUQSWEEP_LIBERO_PRO")
    folder = Path(named) if named else libero_pro.INSTALLED
    if (folder / libero_pro.INSIDE).is_dir():
        return folder
    if os.environ.get("DUQSWEEP_REQUIRE_LIBERO") == "1":
        pytest.fail(f"DUQSWEEP_REQUIRE_LIBERO=1, and LIBERO-PRO's tasks are not in {folder}")
    pytest.skip(f"LIBERO-PRO's tasks: `{libero_pro.install_command()}`")


def check_pro_assets(folder: Path) -> None:
    """Skip where a folder of LIBERO's assets lacks the objects that LIBERO-PRO adds."""
    if any(read_files(folder, suite).missing for suite in SUITES):
        pytest.skip(f"{folder} has no objects of LIBERO-PRO: a test needs the whole asset tree")


@cache
def pro_suite(suite: str, folder: Path, pro_files: Path, *more: str) -> SuiteSpec:
    """The shipped constants of a suite, with pictures that are quick to draw."""
    files = [f"suite.assets={folder}", f"suite.pro_files={pro_files}"]
    overrides = [f"suite={suite}", "suite.image_px=64", *files, *more]
    return compose(["name=test", "enqueue=[reference]", *overrides]).base.suite
