"""Every launcher on a sweep of light trials; for slurm a cluster is started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_lab
from light_lab import Lab

from duqsweep.control.dispatch.slurm import SlurmLauncher

HERE = Path(__file__).parent
LOOK_S = 0.5  # between two looks at SLURM's jobs: this cluster serves nobody else


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_lab.SlurmLab]:
    if not slurm_lab.is_installed():
        if os.environ.get("DUQSWEEP_REQUIRE_SLURM") == "1":
            pytest.fail("DUQSWEEP_REQUIRE_SLURM=1, and slurmctld or slurmd is not installed")
        pytest.skip("slurmctld or slurmd is not installed")
    lab = slurm_lab.SlurmLab(tmp_path_factory.mktemp("slurm"))
    lab.start()
    yield lab
    lab.stop()


@pytest.fixture(
    params=["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)],
)
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    if request.param == "slurm":
        cluster = request.getfixturevalue("slurm")
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        monkeypatch.setattr(SlurmLauncher, "period_s", LOOK_S)
    return str(request.param)


@pytest.fixture
def lab(launcher: str, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(launcher, tmp_path / "sweep")
    yield lab
    for dispatcher in lab.opened:
        dispatcher.close(end_jobs=True)
