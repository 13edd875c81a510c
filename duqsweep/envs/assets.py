"""Which suites there are, and whether their files are; imports neither LIBERO nor torch."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from duqsweep.envs import libero_pro
from duqsweep.envs.libero_pro import PRO_SUITES
from duqsweep.envs.manifest import Manifest
from duqsweep.envs.mini import suite as mini
from duqsweep.errors import ConfigError
from duqsweep.spec import ProtocolSpec

MINI = "duq_mini"
RECORDED = "recorded"  # observations in a file; there is nothing to play
RECORDING = Path(mini.__file__).with_name("recorded.npz")  # the shipped one
OFFICIAL_TASKS = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}
OFFICIAL_INIT_STATES = 50
# Suite → every mesh, texture and description that its ten tasks load, relative to the assets.
OFFICIAL_FILES = Path(__file__).with_name("official_assets.json")
PRO_FILES = Path(__file__).with_name("pro_assets.json")  # the same for LIBERO-PRO's suites
DOWNLOADED = Path(".cache", "libero", "assets")  # in the home folder; where hf-libero puts them
HUB_FOLDER = "datasets--lerobot--libero-assets"  # of Hugging Face's cache
NAMED = 3  # missing files in a message


def check_suite(protocol: ProtocolSpec) -> None:
    """Raise ConfigError unless the suite exists, is as large as told, and has its files."""
    libero_pro.check_categories(protocol.suite, protocol.categories)
    if protocol.suite == RECORDED:
        find_recording(protocol)
        return
    if protocol.suite == MINI:
        tasks, states = len(mini.TASKS), mini.INIT_STATES
    elif protocol.suite in OFFICIAL_TASKS or protocol.suite in PRO_SUITES:
        base = PRO_SUITES.get(protocol.suite, protocol.suite)
        tasks, states = OFFICIAL_TASKS[base], OFFICIAL_INIT_STATES
    else:
        known = [MINI, *OFFICIAL_TASKS, *PRO_SUITES, RECORDED]
        raise ConfigError(f"there is no suite {protocol.suite!r}; there are {known}")
    if protocol.tasks > tasks:
        raise ConfigError(f"suite {protocol.suite} has {tasks} tasks, not {protocol.tasks}")
    if protocol.init_states > states:
        raise ConfigError(
            f"suite {protocol.suite} has {states} initial states a task, not {protocol.init_states}"
        )
    if protocol.suite in PRO_SUITES:
        libero_pro.find_tasks(protocol)
    if protocol.suite in OFFICIAL_TASKS or protocol.suite in PRO_SUITES:
        find_assets(protocol)


def instructions(protocol: ProtocolSpec) -> list[str]:
    """What the policy is told in the tasks of a suite, in alphabetical order.

    Nothing is known of a suite `recorded`: its file may come from anywhere.

    Raises:
        ConfigError: hf-libero, which has the tasks of the official suites, is not installed; or
            LIBERO-PRO's tasks are not.
    """
    suite = protocol.suite
    if suite == MINI:
        return sorted(task.instruction for task in mini.TASKS)
    if suite in OFFICIAL_TASKS:
        return sorted(_official_instructions(suite).values())
    if suite in PRO_SUITES:
        return _pro_instructions(protocol)
    return []


def _official_instructions(suite: str) -> dict[str, str]:
    """Name of a task → what the policy is told."""
    files = (libero_root() / "bddl_files" / suite).glob("*.bddl")
    # "LIVING_ROOM_SCENE2_put_both_…": words in capitals are the scene.
    return {
        file.stem: " ".join(word for word in file.stem.split("_") if not word.isupper())
        for file in files
    }


def _pro_instructions(protocol: ProtocolSpec) -> list[str]:
    root = libero_pro.find_tasks(protocol)
    originals = _official_instructions(PRO_SUITES[protocol.suite])
    told = []
    for category in protocol.categories:
        if category in libero_pro.OTHER_WORDS:
            told += [
                libero_pro.language(libero_pro.bddl_file(root, protocol.suite, category, name))
                for name in originals
            ]
        else:
            told += originals.values()
    return sorted(told)


def find_recording(protocol: ProtocolSpec) -> Path:
    """The file of the suite `recorded`; raises ConfigError where there is none."""
    path = RECORDING if protocol.assets is None else Path(protocol.assets).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"suite.assets must be a file of observations, there is none at {path}")
    return path


def find_assets(protocol: ProtocolSpec) -> Path:
    """The folder of LIBERO's meshes and textures.

    Raises:
        ConfigError: The folder that was named lacks files of the suite; or none was named, and
            none of the places where they are downloaded to has them all.
    """
    if protocol.assets is not None:
        named = Path(protocol.assets).expanduser().resolve()
        _check_named(named, protocol.suite)
        return named
    places = [libero_root() / "assets", Path.home() / DOWNLOADED, *_hub_snapshots()]
    begun = [place for place in places if place.is_dir()]
    for folder in begun:
        if not missing_files(folder, protocol.suite):
            return folder
    help_ = (
        "download them with `hf download --repo-type dataset lerobot/libero-assets`, or name a"
        " folder with suite.assets=PATH"
    )
    if begun:
        lacking = _listed(missing_files(begun[0], protocol.suite), protocol.suite)
        raise ConfigError(f"LIBERO's assets in {begun[0]} are not whole: {lacking}; {help_}")
    raise ConfigError(
        f"suite {protocol.suite} needs LIBERO's assets, and they are not here; {help_}"
    )


def needed_files(suite: str) -> list[str]:
    """Paths, relative to LIBERO's assets, of all that an official suite loads."""
    if suite in PRO_SUITES:
        return Manifest.read(PRO_FILES).suites[suite]
    listed: dict[str, list[str]] = json.loads(OFFICIAL_FILES.read_text(encoding="utf-8"))
    return listed[suite]


def missing_files(folder: Path, suite: str) -> list[str]:
    """Which of `needed_files` are not in a folder."""
    return [name for name in needed_files(suite) if not (folder / name).is_file()]


def libero_root() -> Path:
    """The folder of the inner package `libero.libero`, found without importing it.

    Raises:
        ConfigError: hf-libero is not installed.
    """
    found = importlib.util.find_spec("libero")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("LIBERO is not installed; it comes with `pip install hf-libero==0.1.4`")
    return Path(next(iter(found.submodule_search_locations))) / "libero"


def _check_named(folder: Path, suite: str) -> None:
    if not folder.is_dir():
        raise ConfigError(f"suite.assets must be a folder, there is none at {folder}")
    missing = missing_files(folder, suite)
    if not missing:
        return
    if len(missing) < len(needed_files(suite)):
        raise ConfigError(f"suite.assets is {folder}: {_listed(missing, suite)}")
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not missing_files(p, suite))
    hint = f"; did you mean {inside[0]}?" if inside else ""
    raise ConfigError(
        f"suite.assets is {folder}, which is not a folder of LIBERO's assets (it must hold"
        f" scenes/, textures/, stable_scanned_objects/, ...){hint}"
    )


def _listed(missing: list[str], suite: str) -> str:
    more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
    return (
        f"of the {len(needed_files(suite))} files that {suite} loads,"
        f" {len(missing)} are missing: {', '.join(missing[:NAMED])}{more}"
    )


def _hub_snapshots() -> list[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE  # slow, and only official suites need it

    return sorted((Path(HF_HUB_CACHE) / HUB_FOLDER / "snapshots").glob("*"))
