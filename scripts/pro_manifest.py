"""Writes the two lists of files that LIBERO-PRO's suites need, with a hash of each.

    python scripts/pro_manifest.py TASKS ASSETS

TASKS is a folder that `duqsweep.envs.libero_pro.install_command` filled, ASSETS a folder of
LIBERO's whole asset tree. Builds every task once (four CPU minutes) and notes the files it opens.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from duqsweep.envs import asset_files, libero_pro
from duqsweep.envs.manifest import Manifest
from duqsweep.envs.pro_objects import register_pro_objects
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator

SUITES = tuple(libero_pro.PRO_SUITES)


def main() -> None:
    """Write `pro_tasks.json` and `pro_assets.json` into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path, help="folder with LIBERO-PRO's package")
    parser.add_argument("assets", type=Path, help="folder of LIBERO's assets")
    parsed = parser.parse_args()
    root = parsed.tasks.resolve() / libero_pro.INSIDE
    tasks = Manifest.of_folder(root, {suite: task_files(root, suite) for suite in SUITES})
    libero_pro.TASKS.write_text(tasks.text(), encoding="utf-8")
    folder = parsed.assets.resolve()
    prepare_libero("osmesa", folder)
    register_pro_objects()
    opened = Opened(folder)
    needed = {suite: loaded_files(root, suite, opened) for suite in SUITES}
    asset_files.PRO_MANIFEST.write_text(Manifest.of_folder(folder, needed).text(), encoding="utf-8")


def task_files(root: Path, suite: str) -> list[str]:
    """Descriptions and initial states of a suite's four categories."""
    varied = [libero_pro.varied_suite(suite, category) for category in libero_pro.ENDINGS]
    return [
        path.relative_to(root).as_posix()
        for name in varied
        for kind, pattern in (("bddl_files", "*.bddl"), ("init_files", "*.npz"))
        for path in (root / kind / name).glob(pattern)
    ]


class Opened:
    """The files of a folder that Python or MuJoCo read, by their path in it."""

    def __init__(self, folder: Path) -> None:
        """Listen from now on."""
        self.names: set[str] = set()
        self._folder = folder
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            self.add(arguments[0])

    def add(self, name: str) -> None:
        """Take a file in if it lies in the folder."""
        path = Path(name).resolve()
        if path.is_relative_to(self._folder):
            self.names.add(path.relative_to(self._folder).as_posix())


def loaded_files(root: Path, suite: str, opened: Opened) -> list[str]:
    """What the tasks of all categories load, LIBERO's own tasks included."""
    opened.names = set(asset_files.needed_files(libero_pro.PRO_SUITES[suite]))
    for name in task_files(root, suite):
        if name.endswith(".bddl"):
            simulator = Simulator(root / name, "", None)
            for loaded in re.findall(r'file="([^"]+)"', str(simulator.env.model.get_xml())):
                opened.add(loaded)
            simulator.close()
    return sorted(opened.names)


if __name__ == "__main__":
    main()
