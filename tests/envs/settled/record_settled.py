"""Record where LIBERO's objects lie after ten idle steps, under the MuJoCo that openpi pins.

    pip install --no-deps --target DIR mujoco==3.2.3
    PYTHONPATH=DIR python tests/envs/settled/record_settled.py ASSETS

ASSETS is a folder of LIBERO's assets. Writes positions.json.xz beside this file: the version, and
suite → "task/state" → object → [x, y, z] in metres, world frame, for the first 25 initial states of
every task. `--compare FILE` compares with another file of that form instead of writing.
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path

import mujoco
import numpy as np

from duqsweep.envs.assets import OFFICIAL_TASKS
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import Simulator
from duqsweep.envs.suite_tasks import official_tasks

FILE = Path(__file__).with_name("positions.json.xz")
STATES = 25
SETTLE_STEPS = 10
SEED = 7  # of where fixtures stand; the suite's default
SAME_M = 1e-3

Positions = dict[str, list[float]]  # object → metres


def read(path: Path = FILE) -> dict[str, dict[str, Positions]]:
    """Suite → "task/state" → positions."""
    content = json.loads(lzma.decompress(path.read_bytes()))
    positions: dict[str, dict[str, Positions]] = content["positions"]
    return positions


def positions(simulator: Simulator) -> Positions:
    """Where the objects that can be moved lie now; fixtures stand where the seed puts them."""
    names = simulator.env.objects_dict
    return {name: [round(x, 5) for x in simulator.body_pose(name)[0].tolist()] for name in names}


def settle(suite: str) -> dict[str, Positions]:
    """Every recorded state of a suite, settled by the steps that an evaluation takes."""
    found = {}
    for number, task in enumerate(official_tasks(suite, OFFICIAL_TASKS[suite])):
        simulator = Simulator(task.bddl, task.instruction, None, SEED)
        for state in range(STATES):
            simulator.reset(task.init_states[state], SETTLE_STEPS, as_libero=True)
            found[f"{number}/{state}"] = positions(simulator)
        simulator.close()
    return found


def compare(path: Path) -> None:
    """Print where the recorded file and another one differ by more than a millimetre."""
    ours, theirs = read(), read(path)
    for suite, states in ours.items():
        apart = {
            key: max(distance(place, theirs[suite][key][name]) for name, place in found.items())
            for key, found in states.items()
        }
        far = {key: round(metres, 4) for key, metres in apart.items() if metres > SAME_M}
        print(f"{suite}: {len(far)} of {len(states)} states differ by more than 1 mm {far}")


def distance(one: list[float], other: list[float]) -> float:
    """Metres between two places."""
    return float(np.linalg.norm(np.subtract(one, other)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("assets", type=Path, nargs="?")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    parsed = parser.parse_args()
    if parsed.compare:
        compare(parsed.compare)
        return
    prepare_libero("osmesa", parsed.assets.resolve())
    found = {suite: settle(suite) for suite in OFFICIAL_TASKS}
    content = {"mujoco": mujoco.__version__, "settle_steps": SETTLE_STEPS, "positions": found}
    FILE.write_bytes(lzma.compress(json.dumps(content, separators=(",", ":")).encode()))
    print(f"{FILE}: {sum(map(len, found.values()))} states under MuJoCo {mujoco.__version__}")


if __name__ == "__main__":
    main()
