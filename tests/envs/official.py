"""LIBERO's original assets, where they are installed, its four suites with them, and a policy."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from duqsweep.control.config.sweep_config import compose
from duqsweep.envs.assets import find_assets
from duqsweep.errors import ConfigError
from duqsweep.spec import SuiteSpec

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


def find_official_assets() -> Path:
    """The folder of LIBERO's own files, from the packages of the extra `libero`."""
    try:
        files = find_assets(official_suite("libero_10"))
    except ConfigError as error:
        if os.environ.get("DUQSWEEP_REQUIRE_LIBERO") == "1":
            pytest.fail(f"DUQSWEEP_REQUIRE_LIBERO=1, and {error}")
        pytest.skip(f"needs LIBERO's assets: make setup LIBERO=1 ({error})")
    assert files.kind == "original"
    return files.folder


@cache
def official_suite(suite: str, assets: Path | None = None, image_px: int = 64) -> SuiteSpec:
    """The shipped constants of a suite, with pictures that are quick to draw."""
    overrides = [f"suite={suite}", f"suite.image_px={image_px}"]
    if assets is not None:
        overrides.append(f"suite.assets={assets}")
    return compose(["name=test", "enqueue=[reference]", *overrides]).base.suite


def write_quick_policy(folder: Path) -> None:
    """A pi0.5 of random weights that sees 16 patches of a picture, not 256."""
    from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random  # loads torch

    sizes = small_sizes()
    few = replace(sizes, vision=replace(sizes.vision, patch_px=56))
    write_random(folder, RandomPi05(few))
