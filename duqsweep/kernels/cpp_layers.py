"""`cpp/layers.cpp`: compiled for this machine when it is first asked for, and called by ctypes."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from ctypes import POINTER, Structure, c_float, c_int32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels.compiled_files import compiled_file
from duqsweep.kernels.projection_weights import ProjectionWeights

SOURCE = Path(__file__).parent / "cpp" / "layers.cpp"
OPTIONS = ("-std=c++17", "-O2", "-ftree-vectorize", "-shared", "-fPIC")
# The code asks for no error numbers or exceptions of floating point; nothing else is relaxed.
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd")


class Product(Structure):
    """See the source, for all structures here."""

    _fields_ = (
        ("panels", c_void_p),
        ("bias", c_void_p),
        ("permutation", c_void_p),
        ("rotation", c_void_p),
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("block", c_int32),
        ("largest_code", c_float),
    )


class Norm(Structure):
    """A norm's weight and bias."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p))


class Attention(Structure):
    """q, k and v, and the output."""

    _fields_ = (
        ("inputs", POINTER(Product)),
        ("output", POINTER(Product)),
        ("input_products", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
    )


class Mlp(Structure):
    """Gate and up, or one of them, and down."""

    _fields_ = (
        ("inputs", POINTER(Product)),
        ("output", POINTER(Product)),
        ("input_products", c_int32),
    )


class Layer(Structure):
    """A whole layer."""

    _fields_ = (
        ("before_attention", Norm),
        ("before_mlp", Norm),
        ("attention", Attention),
        ("mlp", Mlp),
        ("width", c_int32),
        ("threads", c_int32),
    )


class Expert(Structure):
    """All layers of the action expert, and the projections before and after them."""

    _fields_ = (
        ("layers", POINTER(Layer)),
        ("from_actions", POINTER(Product)),
        ("to_velocity", POINTER(Product)),
        ("depth", c_int32),
    )


def product(weights: ProjectionWeights, kept: list[Tensor]) -> Product:
    """A float32 layer for the compiled code; its tensors are added to `kept`, which must live on.

    Args:
        weights: "plain" or "simulated".
        kept: Gets what the product points to.
    """
    permutation, rotation = weights.permutation, weights.rotation
    pointers = (
        panels(weights.values, by_output=True),
        None if weights.bias is None else panels(weights.bias[None], by_output=False),
        None if permutation is None else permutation.to(torch.int32),
        None if rotation is None else panels(rotation, by_output=False),
    )
    kept += [tensor for tensor in pointers if tensor is not None]
    return Product(
        *(None if tensor is None else tensor.data_ptr() for tensor in pointers),
        weights.in_features,
        weights.out_features,
        weights.block,
        0.0 if weights.numerics == "plain" else weights.act_qmax,
    )


def panels(matrix: Tensor, by_output: bool) -> Tensor:
    """A float32 matrix as the code reads it: some outputs at a time, input by input.

    Args:
        matrix: (outputs, inputs) if `by_output`, otherwise (inputs, outputs).
        by_output: Which of the two.
    """
    code = library()
    matrix = matrix.contiguous()
    outputs, inputs = matrix.shape if by_output else matrix.shape[::-1]
    panel = code.panel_outputs()
    packed = torch.empty(-(-outputs // panel) * panel * inputs)
    code.pack_panels(matrix.data_ptr(), inputs, outputs, int(by_output), packed.data_ptr())
    return packed


@cache
def library() -> ctypes.CDLL:
    """The compiled code; compiling takes a second, once per machine.

    Raises:
        EvaluationError: There is no C++ compiler, it fails, or its code cannot be loaded.
    """
    compiler = find_compiler()
    options = [*OPTIONS, *ARITHMETIC, *_for_this_machine()]
    made_from = (SOURCE.read_bytes(), " ".join(options).encode(), _version(compiler), _processor())
    path = compiled_file("layers", ".so", made_from, lambda: _compiled(compiler, options))
    try:
        code = ctypes.CDLL(str(path))
    except OSError as error:
        raise EvaluationError(
            f"compiled code cannot be loaded: {error}; delete the file if it is damaged, and set "
            "XDG_CACHE_HOME to another folder if programs in this one may not run (noexec)"
        ) from error
    pointer, number, layer = c_void_p, c_int32, POINTER(Layer)
    signatures: dict[str, tuple[Any, ...]] = {
        "panel_outputs": (),
        "pack_panels": (pointer, number, number, number, pointer),
        "vision_layer": (layer, pointer, number, number),
        "prefix_layer": (layer, pointer, number, number, *([pointer] * 4)),
        "expert_velocity": (
            *(POINTER(Expert), pointer, number, number, pointer, pointer),
            *(POINTER(pointer), POINTER(pointer), number, pointer, number, pointer),
        ),
    }
    for name, arguments in signatures.items():
        function = getattr(code, name)
        function.argtypes, function.restype = arguments, None if arguments else number
    return code


def check_compiled() -> str:
    """Compile the code, call it, and return the compiler's path.

    Raises:
        EvaluationError: There is no C++ compiler, it fails, or its code does not do as it should.
    """
    if panels(torch.eye(3), by_output=True).sum() != 3:
        raise EvaluationError(f"what {find_compiler()} made of {SOURCE} gives wrong results")
    return find_compiler()


def find_compiler() -> str:
    """The path of the C++ compiler: of CXX, g++, c++ and clang++ the first that is on PATH.

    Raises:
        EvaluationError: There is none.
    """
    names = [os.environ.get("CXX") or "g++", "c++", "clang++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise EvaluationError(
            f"none of {', '.join(names)} is on PATH, so runtime.compile=true fails: load one in "
            "launcher.setup"
        )
    return found


def _compiled(compiler: str, options: list[str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "layers.so"
        command = [compiler, *options, str(SOURCE), "-o", str(made)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise EvaluationError(
                f"{compiler} cannot compile {SOURCE} (exit code {ended.returncode}):\n"
                f"{ended.stderr.strip()}"
            )
        return made.read_bytes()


def _for_this_machine() -> tuple[str, ...]:
    """Apple's compiler has no OpenMP, and names processors in another way."""
    return () if sys.platform == "darwin" else ("-march=native", "-fopenmp")


def _version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout


def _processor() -> bytes:
    """Of this node: the nodes of a cluster may share a home, but not be alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    named = ("flags", "Features", "model name", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(named)})).encode()
