"""What simulates a suite's episodes, by version and content; imports no simulator."""

from __future__ import annotations

from importlib import metadata

from duqsweep.envs.assets import RECORDED, check_suite
from duqsweep.envs.manifest import sha256
from duqsweep.envs.mini import suite as mini
from duqsweep.errors import ConfigError
from duqsweep.fingerprint import digest
from duqsweep.result import SimulatorInfo
from duqsweep.spec import SuiteSpec

# Package → versions under which objects settle as in published evaluations, and, for the last one,
# the shipped policy was measured (docs/decisions/0011-simulator.md; tests/envs/settled).
KNOWN_GOOD = {
    "mujoco": ("3.2.3", "3.3.7"),
    "robosuite": ("1.4.0",),
}


def describe_simulator(suite: SuiteSpec) -> SimulatorInfo | None:
    """What will simulate the episodes of a suite; None for one without episodes.

    Raises:
        ConfigError: The suite does not exist or lacks files, or an installed version moves objects
            otherwise than published evaluations.
    """
    files = check_suite(suite)
    if suite.name == RECORDED:
        return None
    mujoco = _known_good("mujoco", suite.name)
    robosuite = _known_good("robosuite", suite.name)
    libero = _installed("hf-libero")
    if files is None:
        content = digest({path.name: sha256(path) for path in mini.files()})
        return SimulatorInfo(mujoco, robosuite, libero, assets="shipped", assets_id=content)
    return SimulatorInfo(
        mujoco,
        robosuite,
        libero,
        assets=files.kind,
        assets_id=files.id,
        asset_files=len(files.needed),
        stand_ins=len(files.changed),
    )


def _known_good(package: str, suite: str) -> str:
    version = _installed(package)
    good = KNOWN_GOOD[package]
    if version not in good:
        raise ConfigError(
            f"{package} {version} is not known to play {suite} as published evaluations do; "
            f"known good are {', '.join(good)}: pip install {package}=={good[-1]} "
            "(docs/decisions/0011-simulator.md)"
        )
    return version


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise ConfigError(f"{package} is not installed; `pip install duqsweep` brings it") from None
