"""Initial states of LIBERO are what LIBERO itself reads, and their files can run nothing."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from duqsweep.envs.init_states import read_init_states
from duqsweep.errors import InfrastructureError

# In a process of its own: LIBERO's own way loads torch.
COMPARE = """
import sys
from pathlib import Path
import numpy as np
from duqsweep.envs.assets import OFFICIAL_TASKS
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.suite_tasks import official_tasks

prepare_libero("osmesa", Path("."))
ours = {suite: official_tasks(suite, count) for suite, count in OFFICIAL_TASKS.items()}
assert "torch" not in sys.modules
from libero.libero.benchmark import get_benchmark

for suite, tasks in ours.items():
    theirs = get_benchmark(suite)()
    assert len(tasks) == theirs.n_tasks
    for number, task in enumerate(tasks):
        assert task.bddl == Path(theirs.get_task_bddl_file_path(number))
        assert task.bddl.exists()
        assert task.instruction == theirs.get_task(number).language
        assert np.array_equal(task.init_states, theirs.get_task_init_states(number))
        assert task.init_states.dtype == np.float64
"""


def test_tasks_of_official_suites_are_liberos_own_and_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", COMPARE], check=True, stdin=subprocess.DEVNULL)


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def written(path: Path, content: bytes, name: str = "archive/data.pkl") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path


def test_a_file_that_names_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    content = pickle.dumps(Runs(marker), protocol=2)
    path = written(tmp_path / "states", content)
    with pytest.raises(InfrastructureError, match=r"states.* names posix\.mkdir"):
        read_init_states(path)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_cut_file_is_named(cut: int, tmp_path: Path) -> None:
    whole = pickle.dumps(np.zeros((50, 9)).tolist(), protocol=2)
    path = written(tmp_path / "states", whole[:cut])
    with pytest.raises(InfrastructureError, match=r"states is no file of LIBERO's initial states"):
        read_init_states(path)


@pytest.mark.parametrize("name", ["archive/other", "data.pkl"])
def test_an_archive_without_states_is_named(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "states", pickle.dumps([]), name)
    with pytest.raises(InfrastructureError, match=r"states is no file of LIBERO's initial states"):
        read_init_states(path)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "states", pickle.dumps([1.0], protocol=2))
    with pytest.raises(InfrastructureError, match=r"no table of states, but list"):
        read_init_states(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="states"):
        read_init_states(tmp_path / "states")
