"""The actions of each episode: the simulator repeats the episode from them, without a policy."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duqsweep import files
from duqsweep.codec import encode
from duqsweep.errors import EvaluationError, SpecError
from duqsweep.seams import ACTION_DIM


@dataclass(frozen=True)
class _Line:
    """One attempt of one episode: a line of actions.jsonl, 2 to 20 kB."""

    i: int  # ledger entry
    attempt: int
    actions: str  # float64, little-endian, (steps, 7), by zlib and base64

    def __post_init__(self) -> None:
        if self.i < 0 or self.attempt < 0:
            raise SpecError(f"i and attempt must be >= 0, got {self.i} and {self.attempt}")


def append_actions(trial_dir: Path, i: int, attempt: int, actions: NDArray[np.float64]) -> None:
    """Append the actions that an episode executed.

    Args:
        trial_dir: `trials/NNNN` of a sweep.
        i: Ledger entry.
        attempt: 0, or 1 for the retry of an error.
        actions: (steps, 7), as the policy gave them.
    """
    packed = zlib.compress(np.ascontiguousarray(actions, dtype="<f8").tobytes())
    line = _Line(i, attempt, base64.b64encode(packed).decode("ascii"))
    files.append_line(trial_dir / files.ACTIONS_JSONL, encode(line))


class RecordedActions:
    """The actions of all episodes of a trial."""

    def __init__(self, trial_dir: Path) -> None:
        """Read them.

        Raises:
            EvaluationError, SpecError: A line is damaged; the message names it.
        """
        self._path = trial_dir / files.ACTIONS_JSONL
        # A killed worker may have written a line twice; the later one is the recorded episode's.
        lines = files.read_records(_Line, self._path)
        self._packed = {(line.i, line.attempt): line.actions for line in lines}

    def of(self, i: int, attempt: int) -> NDArray[np.float64]:
        """What an episode executed, (steps, 7).

        Raises:
            EvaluationError: It was not recorded, or is damaged.
        """
        packed = self._packed.get((i, attempt))
        if packed is None:
            raise EvaluationError(
                f"{self._path} does not hold the actions of episode {i}; only episodes that were "
                "played since actions are recorded can be shown"
            )
        try:
            flat = np.frombuffer(zlib.decompress(base64.b64decode(packed, validate=True)), "<f8")
            return flat.reshape(-1, ACTION_DIM).astype(np.float64)
        except (ValueError, zlib.error) as error:
            raise EvaluationError(
                f"{self._path}: the actions of episode {i} are damaged: {error}"
            ) from error
