"""Compiles the package's CUDA C++ for the current GPU with NVRTC, NVIDIA's run-time compiler.

PyTorch's CUDA builds install NVRTC and its Python bindings.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.compiled_files import compiled_file

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cuda"
PROBE = b'extern "C" __global__ void probe() {}'


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel."""

    function: Any
    shared_bytes: int = 0  # dynamic shared memory per CTA
    module: Any = None

    def constant(self, name: str) -> int:
        """The value of an integer constant of the source."""
        return _read(self.module, name)

    def launch_at_once(self, arguments: ctypes.Structure, ctas: int, threads: int) -> None:
        """Launch a grid whose CTAs are all on the GPU at the same time, on the current stream.

        Args:
            arguments: The kernel's only argument.
            ctas: CTAs of the grid.
            threads: Threads per CTA.

        Raises:
            EvaluationError: The GPU cannot hold all CTAs at once, or the driver refuses.
        """
        sizes = (ctas, 1, 1, threads, 1, 1, self.shared_bytes)
        stream = torch.cuda.current_stream().cuda_stream
        with _pointer_to(arguments) as given:
            _checked(_driver().cuLaunchCooperativeKernel(self.function, *sizes, stream, given))

    def launch_early(
        self, arguments: ctypes.Structure, ctas: tuple[int, int], threads: int
    ) -> None:
        """Launch CTAs that may start before the previous kernel on the stream ends.

        Args:
            arguments: The kernel's only argument.
            ctas: CTAs of the grid: x and y.
            threads: Threads per CTA.

        Raises:
            EvaluationError: The driver refuses.
        """
        driver = _driver()
        early, value = driver.CUlaunchAttribute(), driver.CUlaunchAttributeValue()
        names = driver.CUlaunchAttributeID
        early.id = names.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        value.programmaticStreamSerializationAllowed = 1
        early.value = value
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = (*ctas, 1)
        config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
        config.sharedMemBytes = self.shared_bytes
        config.hStream = torch.cuda.current_stream().cuda_stream
        config.attrs, config.numAttrs = [early], 1
        with _pointer_to(arguments) as given:
            _checked(driver.cuLaunchKernelEx(config, self.function, given, 0))


def build(
    name: str,
    constants: Mapping[str, int | str],
    headers: Mapping[str, str] = MappingProxyType({}),
    function: str | None = None,
) -> Kernel:
    """Compile `cuda/NAME.cu`; cached for the process and on disk.

    Args:
        name: Name of the file.
        constants: Preprocessor definitions.
        headers: Further headers that it includes: their text, by file name.
        function: Name of the kernel; None: that of the file, which has as many bytes of dynamic
            shared memory as the source's constant `shared_bytes` says.

    Raises:
        EvaluationError: The bindings are missing, or the source does not compile.
    """
    given = tuple(sorted(constants.items()))
    return _build(name, given, tuple(headers.items()), function or name, _target())


def row_major_map(matrix: Tensor, rows: int, columns: int) -> Any:
    """A tensor map (CUtensorMap) for TMA, as an array of 128 bytes for a kernel's arguments.

    Args:
        matrix: Of one byte per element, its rows contiguous and a multiple of 16 bytes.
        rows: Of a box, at most 256.
        columns: Of a box: 128. They are stored with a swizzle of 128 bytes.

    Raises:
        EvaluationError: The driver refuses.
    """
    driver = _driver()
    found = _checked(
        driver.cuTensorMapEncodeTiled(
            driver.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT8,
            2,
            matrix.data_ptr(),
            [driver.cuuint64_t(size) for size in (matrix.shape[1], matrix.shape[0])],
            [driver.cuuint64_t(matrix.stride(0))],
            [driver.cuuint32_t(size) for size in (columns, rows)],
            [driver.cuuint32_t(1), driver.cuuint32_t(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return (ctypes.c_ubyte * 128).from_buffer_copy(ctypes.string_at(found.getPtr(), 128))


@cache
def multiprocessors() -> int:
    """Multiprocessors (SMs) of the current GPU."""
    return torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count


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
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = ctas, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = threads, 1, 1
    config.sharedMemBytes, config.attrs, config.numAttrs = shared, [_cluster_attribute(ctas)], 1
    return int(_checked(driver.cuOccupancyMaxActiveClusters(function, config)))


@cache
def _build(
    name: str,
    constants: tuple[tuple[str, int | str], ...],
    headers: tuple[tuple[str, str], ...],
    function: str,
    target: str,
) -> Kernel:
    driver = _driver()
    start = time.perf_counter()
    defined = [f"-D{key}={value}" for key, value in constants]
    source = (SOURCES / f"{name}.cu").read_bytes()
    module = _load(_compile(name, source, ["-std=c++17", target, *defined], dict(headers)))
    kernel = _checked(driver.cuModuleGetFunction(module, function.encode()))
    if function != name:
        return Kernel(kernel, module=module)
    shared_bytes = _read(module, "shared_bytes")
    _allow(kernel, shared_bytes)
    log.info("compiled %s.cu for %s: %.1f s", name, dict(constants), time.perf_counter() - start)
    return Kernel(kernel, shared_bytes, module)


def _target() -> str:
    # "a": with the instructions of warp groups, which only this generation has.
    return "-arch=sm_{}{}a".format(*torch.cuda.get_device_capability())


def _cluster_attribute(ctas: int) -> Any:
    driver = _driver()
    attribute, value = driver.CUlaunchAttribute(), driver.CUlaunchAttributeValue()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    value.clusterDim.x, value.clusterDim.y, value.clusterDim.z = ctas, 1, 1
    attribute.value = value
    return attribute


@contextmanager
def _pointer_to(arguments: ctypes.Structure) -> Iterator[int]:
    """The address of an array of pointers to a kernel's arguments."""
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
    yield ctypes.addressof(pointers)


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise EvaluationError(
            "kernels in CUDA C++ are compiled with cuda-bindings, which a CUDA build of torch "
            f"installs; it cannot be imported here: {error}"
        ) from error
    return driver


def _compile(
    name: str, source: bytes, options: list[str], further: Mapping[str, str] = MappingProxyType({})
) -> bytes:
    from cuda.bindings import nvrtc

    headers = {path.name.encode(): path.read_bytes() for path in sorted(SOURCES.glob("*.cuh"))}
    headers |= {file.encode(): text.encode() for file, text in further.items()}
    given = [option.encode() for option in options]
    version = repr(_checked(nvrtc.nvrtcVersion())).encode()
    made_from = [version, *given, source, *(part for item in headers.items() for part in item)]
    compile_now = partial(_compile_now, name, source, given, headers)
    return compiled_file(name, ".cubin", made_from, compile_now).read_bytes()


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
