"""Our suite, and the examples' expert."""

from __future__ import annotations

import copy
import gc
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from official import SUITES, find_official_assets
from plain import write_plain_assets

from duqsweep.envs.mini import suite as mini
from duqsweep.spec import SuiteSpec

EXPERT = Path(__file__).parents[2] / "examples" / "embedded_policy" / "expert.py"

KEPT_MODELS = 4  # about 100 MB each
_models: dict[str, Any] = {}  # XML → what MuJoCo made of it
_frozen: list[str] = []  # "robosuite", once its objects are


@pytest.fixture(autouse=True)
def quick_collections() -> None:
    """robosuite collects garbage for each simulator it closes; let it skip what lives on anyway.

    Once LIBERO is loaded: a collection then takes a tenth of the time.
    """
    if "robosuite" in sys.modules and not _frozen:
        gc.collect()
        gc.freeze()
        _frozen.append("robosuite")


@pytest.fixture(autouse=True)
def models_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is built again comes from memory: MuJoCo takes half a second to compile one."""
    if "robosuite.utils.binding_utils" in sys.modules:
        simulation = sys.modules["robosuite.utils.binding_utils"].MjSim
        monkeypatch.setattr(simulation, "from_xml_string", classmethod(_with_known_model))


def _with_known_model(cls: Any, xml: str) -> Any:
    import mujoco

    if xml not in _models:
        model = _models[xml] = mujoco.MjModel.from_xml_string(xml)
        if str(mini.ASSETS) not in xml:  # no other process draws the same: cheap pictures will do
            model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        while len(_models) > KEPT_MODELS:
            del _models[next(iter(_models))]
    return cls(copy.copy(_models[xml]))  # a simulator changes its own


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


@pytest.fixture(scope="session")
def plain_official_assets(official_assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with tiny pictures and meshes."""
    folder = tmp_path_factory.mktemp("plain_official_assets")
    write_plain_assets(official_assets.resolve(), folder, SUITES)
    return folder
