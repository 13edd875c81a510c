"""The CUDA C++ compiles where there is a compiler; no GPU is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from duqsweep.kernels.expert.persistent import Constants
from duqsweep.kernels.nvrtc import SOURCES, TOLD

NVCC = shutil.which("nvcc")


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(
    "constants",
    [
        Constants(10, format=4, block=16, top=127.0, layers=18, action=32, clusters=15),
        Constants(64, format=8, block=128, top=7.0, layers=2, action=7, clusters=14),
    ],
)
def test_the_loop_compiles_without_a_warning(constants: Constants, tmp_path: Path) -> None:
    defined = [f"-D{key}={value}" for key, value in constants.definitions().items()]
    command = [str(NVCC), "-std=c++17", "-arch=sm_90", "-Werror=all-warnings", "-cubin", *defined]
    command += ["-o", str(tmp_path / "out"), str(SOURCES / "expert_loop.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_loop_tells_its_launcher_what_it_asks() -> None:
    source = (SOURCES / "expert_loop.cu").read_text()
    (told,) = [line for line in source.splitlines() if "__constant__ int" in line]
    assert all(name in told for name in TOLD)
