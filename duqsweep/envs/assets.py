"""Which suites there are, and whether their files are; imports neither LIBERO nor torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from duqsweep.envs.mini import suite as mini
from duqsweep.errors import ConfigError
from duqsweep.spec import ProtocolSpec

MINI = "duq_mini"
OFFICIAL_TASKS = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}
OFFICIAL_INIT_STATES = 50
HUB_FOLDER = "datasets--lerobot--libero-assets"  # of Hugging Face's cache


def check_suite(protocol: ProtocolSpec) -> None:
    """Raise ConfigError unless the suite exists, is as large as told, and has its files."""
    if protocol.suite == MINI:
        tasks, states = len(mini.TASKS), mini.INIT_STATES
    elif protocol.suite in OFFICIAL_TASKS:
        tasks, states = OFFICIAL_TASKS[protocol.suite], OFFICIAL_INIT_STATES
    else:
        known = [MINI, *OFFICIAL_TASKS]
        raise ConfigError(f"there is no suite {protocol.suite!r}; there are {known}")
    if protocol.tasks > tasks:
        raise ConfigError(f"suite {protocol.suite} has {tasks} tasks, not {protocol.tasks}")
    if protocol.init_states > states:
        raise ConfigError(
            f"suite {protocol.suite} has {states} initial states a task, not {protocol.init_states}"
        )
    if protocol.suite in OFFICIAL_TASKS:
        find_assets(protocol)


def find_assets(protocol: ProtocolSpec) -> Path:
    """The folder of LIBERO's meshes and textures.

    Raises:
        ConfigError: The folder that was named lacks them; or none was named, and neither
            hf-libero's own folder nor Hugging Face's cache has them.
    """
    if protocol.assets is not None:
        named = Path(protocol.assets).expanduser().resolve()
        if not (named / "scenes").is_dir():
            raise ConfigError(
                f"suite.assets is {named}, which is not a folder of LIBERO's assets"
                " (it must hold scenes/, textures/, stable_scanned_objects/, ...)"
            )
        return named
    candidates = [libero_root() / "assets", *_hub_snapshots()]
    for folder in candidates:
        if (folder / "scenes").is_dir():
            return folder
    raise ConfigError(
        f"suite {protocol.suite} needs LIBERO's assets, and they are not here; download them"
        " with `hf download --repo-type dataset lerobot/libero-assets`, or name a folder with"
        " suite.assets=PATH"
    )


def libero_root() -> Path:
    """The folder of the inner package `libero.libero`, found without importing it.

    Raises:
        ConfigError: hf-libero is not installed.
    """
    found = importlib.util.find_spec("libero")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("LIBERO is not installed; it comes with `pip install hf-libero==0.1.4`")
    return Path(next(iter(found.submodule_search_locations))) / "libero"


def _hub_snapshots() -> list[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE  # slow, and only official suites need it

    return sorted((Path(HF_HUB_CACHE) / HUB_FOLDER / "snapshots").glob("*"))
