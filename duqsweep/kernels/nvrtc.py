"""Compiles the package's CUDA C++ for the GPU at hand, with NVIDIA's run-time compiler.

PyTorch's CUDA builds bring that compiler and its Python bindings along.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from duqsweep.errors import EvaluationError

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cuda"
TOLD = ("shared_bytes", "most_keys")  # constants that a source tells its launcher
PROBE = b'extern "C" __global__ void probe() {}'


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel whose programs are all on the GPU at once."""

    function: Any
    told: Mapping[str, int]  # by the names in `TOLD`
    programs: int
    threads: int

    def launch(self, arguments: ctypes.Structure) -> None:
        """Put it on the current stream.

        Raises:
            EvaluationError: The GPU cannot hold all programs at once, or the driver refuses.
        """
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        sizes = (self.programs, 1, 1, self.threads, 1, 1, self.told["shared_bytes"])
        stream = torch.cuda.current_stream().cuda_stream
        address = ctypes.addressof(pointers)
        _checked(_driver().cuLaunchCooperativeKernel(self.function, *sizes, stream, address))


def build(name: str, constants: Mapping[str, int | str], programs: int, threads: int) -> Kernel:
    """Compile `cuda/NAME.cu`, whose kernel has the same name; once a process.

    Args:
        name: Of the file and of the kernel.
        constants: Preprocessor definitions.
        programs: Of the grid.
        threads: Of a program.

    Raises:
        EvaluationError: The bindings are missing, or the source does not compile.
    """
    return _build(name, tuple(sorted(constants.items())), programs, threads, _target())


@cache
def clusters_at_once(programs: int, threads: int) -> int:
    """Clusters of so many programs that the GPU runs at a time, with all of a program's memory.

    Fewer than its multiprocessors suggest: a cluster lies within one of the groups of those, whose
    sizes differ.

    Raises:
        EvaluationError: The bindings are missing.
    """
    driver = _driver()
    module = _load(_compile("probe", PROBE, [_target()]))
    function = _checked(driver.cuModuleGetFunction(module, b"probe"))
    most = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    shared = _checked(driver.cuDeviceGetAttribute(most, torch.cuda.current_device()))
    _allow(function, shared)
    attribute, value = driver.CUlaunchAttribute(), driver.CUlaunchAttributeValue()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    value.clusterDim.x, value.clusterDim.y, value.clusterDim.z = programs, 1, 1
    attribute.value = value
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = programs, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.attrs, config.numAttrs = shared, [attribute], 1
    return int(_checked(driver.cuOccupancyMaxActiveClusters(function, config)))


@cache
def _build(
    name: str,
    constants: tuple[tuple[str, int | str], ...],
    programs: int,
    threads: int,
    target: str,
) -> Kernel:
    driver = _driver()
    start = time.perf_counter()
    defined = [f"-D{key}={value}" for key, value in constants]
    source = (SOURCES / f"{name}.cu").read_bytes()
    module = _load(_compile(name, source, ["-std=c++17", target, *defined]))
    function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    told = {constant: _read(module, constant) for constant in TOLD}
    _allow(function, told["shared_bytes"])
    log.info("compiled %s.cu for %s: %.1f s", name, dict(constants), time.perf_counter() - start)
    return Kernel(function, told, programs, threads)


def _target() -> str:
    return "-arch=sm_{}{}".format(*torch.cuda.get_device_capability())


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EvaluationError(
            "kernels in CUDA C++ are compiled with cuda-bindings, which a CUDA build of torch "
            f"brings along; it cannot be imported here: {error}"
        ) from error
    return driver


def _compile(name: str, source: bytes, options: list[str]) -> bytes:
    from cuda.bindings import nvrtc

    headers = sorted(SOURCES.glob("*.cuh"))
    program = _checked(
        nvrtc.nvrtcCreateProgram(
            source,
            f"{name}.cu".encode(),
            len(headers),
            [header.read_bytes() for header in headers],
            [header.name.encode() for header in headers],
        )
    )
    given = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        printed = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, printed))
        text = printed.decode().strip(" \n\0")
        raise EvaluationError(f"{name}.cu does not compile with {options}: {text}")
    cubin: bytes = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, cubin))  # into it
    return cubin


def _load(cubin: bytes) -> Any:
    torch.cuda.current_stream()  # makes the context
    return _checked(_driver().cuModuleLoadData(cubin))


def _allow(function: Any, shared_bytes: int) -> None:
    """Let a kernel have more shared memory than is usual."""
    driver = _driver()
    limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, limit, shared_bytes))


def _read(module: Any, name: str) -> int:
    """An integer constant of a module."""
    driver = _driver()
    address, size = _checked(driver.cuModuleGetGlobal(module, name.encode()))
    value = ctypes.c_int()
    _checked(driver.cuMemcpyDtoH(ctypes.addressof(value), address, size))
    return value.value


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver or the compiler returns behind its status."""
    status, *values = answer
    if status.value:
        raise EvaluationError(f"CUDA refuses: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)
