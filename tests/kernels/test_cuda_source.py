"""The CUDA C++ compiles with nvcc; no GPU is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from duqsweep.kernels.expert.persistent import Constants
from duqsweep.kernels.nvrtc import SOURCES

NVCC = shutil.which("nvcc")


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("constants", "chunked"),
    [
        (Constants(10, 4, False, block=16, qmax=127.0, layers=18, action=32, clusters=15), False),
        (Constants(64, 8, False, block=128, qmax=7.0, layers=2, action=7, clusters=14), True),
        (Constants(50, 4, False, block=16, qmax=127.0, layers=2, action=7, clusters=14), False),
        (Constants(50, 8, True, block=16, qmax=448.0, layers=2, action=7, clusters=15), False),
    ],
)
def test_the_loop_compiles_without_a_warning(
    constants: Constants, chunked: bool, tmp_path: Path
) -> None:
    defined = [f"-D{key}={value}" for key, value in constants.definitions(chunked).items()]
    command = [str(NVCC), "-std=c++17", "-arch=sm_90", "-Werror=all-warnings", "-cubin", *defined]
    command += ["-o", str(tmp_path / "out"), str(SOURCES / "expert_loop.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
