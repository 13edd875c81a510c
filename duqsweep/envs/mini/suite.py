"""The tasks of `duq_mini` and their files; imports neither LIBERO nor MuJoCo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOT = Path(__file__).parent
ASSETS = ROOT / "assets"
INIT_STATES = 50  # per task; the first half is for searches, the second is reserved


@dataclass(frozen=True)
class MiniTask:
    """One task: its instruction, and the stem of its BDDL and init-state files."""

    name: str
    instruction: str

    @property
    def bddl(self) -> Path:
        """LIBERO's description of scene, placements and goal."""
        return ROOT / "bddl" / f"{self.name}.bddl"

    @property
    def init_states_file(self) -> Path:
        """Flat simulator states, float64 (INIT_STATES, n), written by `make_init_states.py`."""
        return ROOT / "init_states" / f"{self.name}.npy"

    def init_states(self) -> NDArray[np.float64]:
        """The shipped initial states."""
        import numpy  # here, so that the control side can list tasks without loading numpy

        states: NDArray[np.float64] = numpy.load(self.init_states_file, allow_pickle=False)
        return states


TASKS = (
    # 0 and 1 share one scene: only the instruction tells them apart.
    MiniTask("red_cube_in_tray", "pick up the red cube and place it in the tray"),
    MiniTask("blue_cube_in_tray", "pick up the blue cube and place it in the tray"),
    MiniTask("push_plate", "push the plate onto the green zone"),
    MiniTask("stack_cube", "stack the red cube on the green block"),
    MiniTask("peg_in_cup", "put the yellow peg in the cup"),
    # Two equal targets with a post between them: the mean of the two paths hits the post.
    MiniTask("either_zone", "move the red cube to either zone"),
)


def files() -> list[Path]:
    """All files that affect how an episode looks and moves, in a fixed order."""
    folders = (ASSETS, ROOT / "bddl", ROOT / "init_states")
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
