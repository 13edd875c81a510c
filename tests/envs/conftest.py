"""Our suite, and the examples' expert."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from official import find_official_assets

from duqsweep.spec import SuiteSpec

EXPERT = Path(__file__).parents[2] / "examples" / "embedded_policy" / "expert.py"


@pytest.fixture(scope="session")
def suite() -> SuiteSpec:
    return SuiteSpec(
        name="duq_mini",
        tasks=6,
        init_states=50,
        image_px=64,
        max_steps=125,
        nominal_steps=65,
        settle_steps=5,
        replan_steps=5,
    )


@pytest.fixture(scope="session")
def expert() -> ModuleType:
    spec = importlib.util.spec_from_file_location("expert", EXPERT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["expert"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_assets() -> Path:
    return find_official_assets()
