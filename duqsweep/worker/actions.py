"""The actions of each episode: the simulator repeats the episode from them, without a policy."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duqsweep import files
from duqsweep.codec import decode, encode
from duqsweep.errors import EvaluationError, SpecError

ACTION_DIM = 7


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


def read_actions(trial_dir: Path, i: int, attempt: int) -> NDArray[np.float64]:
    """The actions (steps, 7) that an episode executed.

    Raises:
        EvaluationError: They were not recorded, or their line is damaged.
    """
    path = trial_dir / files.ACTIONS_JSONL
    # A killed worker may have written a line twice; the later one belongs to the recorded episode.
    for data in reversed(files.read_lines(path)):
        line = decode(_Line, data, path.name)
        if (line.i, line.attempt) == (i, attempt):
            return _unpacked(line, path)
    raise EvaluationError(
        f"{path} does not hold the actions of episode {i}; only episodes that were played since "
        "actions are recorded can be shown"
    )


def _unpacked(line: _Line, path: Path) -> NDArray[np.float64]:
    try:
        packed: Any = base64.b64decode(line.actions, validate=True)
        flat = np.frombuffer(zlib.decompress(packed), dtype="<f8")
        return flat.reshape(-1, ACTION_DIM).astype(np.float64)
    except (ValueError, zlib.error) as error:
        raise EvaluationError(
            f"{path}: the actions of episode {line.i} are damaged: {error}"
        ) from error
