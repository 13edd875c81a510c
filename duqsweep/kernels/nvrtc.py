"""Compiles the package's CUDA C++ for the current GPU with NVRTC, NVIDIA's run-time compiler.

PyTorch's CUDA builds install NVRTC and its Python bindings.
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
from duqsweep.kernels.cubins import cached_cubin

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cuda"
EXPORTED = ("shared_bytes",)  # constants of a source that its launcher reads
PROBE = b'extern "C" __global__ void probe() {}'


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel for a cooperative launch: all its CTAs are on the GPU at the same time."""

    function: Any
    exported: Mapping[str, int]  # values of the constants `EXPORTED`
    ctas: int  # of the grid
    threads: int  # per CTA

    def launch(self, arguments: ctypes.Structure) -> None:
        """Launch the kernel on the current stream.

        Raises:
            EvaluationError: The GPU cannot hold all CTAs at once, or the driver refuses.
        """
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        sizes = (self.ctas, 1, 1, self.threads, 1, 1, self.exported["shared_bytes"])
        stream = torch.cuda.current_stream().cuda_stream
        address = ctypes.addressof(pointers)
        _checked(_driver().cuLaunchCooperativeKernel(self.function, *sizes, stream, address))


def build(name: str, constants: Mapping[str, int | str], ctas: int, threads: int) -> Kernel:
    """Compile `cuda/NAME.cu`, whose kernel has the same name; cached for the process and on disk.

    Args:
        name: Name of the file and of the kernel.
        constants: Preprocessor definitions.
        ctas: CTAs of the grid.
        threads: Threads per CTA.

    Raises:
        EvaluationError: The bindings are missing, or the source does not compile.
    """
    return _build(name, tuple(sorted(constants.items())), ctas, threads, _target())


@cache
def max_active_clusters(ctas: int, threads: int) -> int:
    """How many clusters of `ctas` CTAs with all of a CTA's shared memory run at the same time.

    This is less than the number of multiprocessors (SMs) suggests: a cluster must lie within one
    group of SMs (GPC), and these groups differ in size.

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
    value.clusterDim.x, value.clusterDim.y, value.clusterDim.z = ctas, 1, 1
    attribute.value = value
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = ctas, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.attrs, config.numAttrs = shared, [attribute], 1
    return int(_checked(driver.cuOccupancyMaxActiveClusters(function, config)))


@cache
def _build(
    name: str,
    constants: tuple[tuple[str, int | str], ...],
    ctas: int,
    threads: int,
    target: str,
) -> Kernel:
    driver = _driver()
    start = time.perf_counter()
    defined = [f"-D{key}={value}" for key, value in constants]
    source = (SOURCES / f"{name}.cu").read_bytes()
    module = _load(_compile(name, source, ["-std=c++17", target, *defined]))
    function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    exported = {constant: _read(module, constant) for constant in EXPORTED}
    _allow(function, exported["shared_bytes"])
    log.info("compiled %s.cu for %s: %.1f s", name, dict(constants), time.perf_counter() - start)
    return Kernel(function, exported, ctas, threads)


def _target() -> str:
    return "-arch=sm_{}{}".format(*torch.cuda.get_device_capability())


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EvaluationError(
            "kernels in CUDA C++ are compiled with cuda-bindings, which a CUDA build of torch "
            f"installs; it cannot be imported here: {error}"
        ) from error
    return driver


def _compile(name: str, source: bytes, options: list[str]) -> bytes:
    from cuda.bindings import nvrtc

    headers = {path.name.encode(): path.read_bytes() for path in sorted(SOURCES.glob("*.cuh"))}
    given = [option.encode() for option in options]
    version = repr(_checked(nvrtc.nvrtcVersion())).encode()
    made_from = [version, *given, source, *(part for item in headers.items() for part in item)]
    return cached_cubin(name, made_from, lambda: _compile_now(name, source, given, headers))


def _compile_now(
    name: str, source: bytes, given: list[bytes], headers: Mapping[bytes, bytes]
) -> bytes:
    from cuda.bindings import nvrtc

    program = _checked(
        nvrtc.nvrtcCreateProgram(
            source, f"{name}.cu".encode(), len(headers), [*headers.values()], [*headers]
        )
    )
    (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        printed = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, printed))
        text = printed.decode().strip(" \n\0")
        options = b" ".join(given).decode()
        raise EvaluationError(f"{name}.cu does not compile with {options}: {text}")
    cubin: bytes = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, cubin))  # writes into `cubin`
    return cubin


def _load(cubin: bytes) -> Any:
    torch.cuda.current_stream()  # creates the CUDA context
    return _checked(_driver().cuModuleLoadData(cubin))


def _allow(function: Any, shared_bytes: int) -> None:
    """Let a kernel use more than 48 KiB of dynamic shared memory."""
    driver = _driver()
    limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, limit, shared_bytes))


def _read(module: Any, name: str) -> int:
    """The value of an integer constant of a module."""
    driver = _driver()
    address, size = _checked(driver.cuModuleGetGlobal(module, name.encode()))
    value = ctypes.c_int()
    _checked(driver.cuMemcpyDtoH(ctypes.addressof(value), address, size))
    return value.value


def _checked(answer: tuple[Any, ...]) -> Any:
    """The values that a call of the driver or the compiler returns after its status.

    Raises:
        EvaluationError: The status is an error.
    """
    status, *values = answer
    if status.value:
        raise EvaluationError(f"a CUDA call failed: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)
