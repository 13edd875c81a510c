"""Reads weights tensor by tensor into their final memory, so that they are never held twice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from duqsweep.checkpoint.parameters import is_kept_float32, neighbours
from duqsweep.checkpoint.safetensors_header import StoredTensor
from duqsweep.errors import EvaluationError

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
MEMORY_INFO = Path("/proc/meminfo")


def weight_dtype(device: str) -> torch.dtype:
    """Dtype in which weights are loaded: bfloat16 on a GPU, float32 on a CPU."""
    return torch.float32 if device == "cpu" else torch.bfloat16


def bytes_needed(parameters: Mapping[str, StoredTensor], dtype: torch.dtype) -> int:
    """Bytes of all loaded weights plus the largest stored tensor, which is read into a buffer."""
    loaded = sum(
        math.prod(stored.shape) * parameter_dtype(name, dtype).itemsize
        for name, stored in parameters.items()
    )
    return loaded + max(stored.nbytes for stored in parameters.values())


def bytes_free(device: str) -> int | None:
    """Bytes that a process can still allocate on the device; None if the system does not say."""
    if device != "cpu":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    if not MEMORY_INFO.exists():
        return None
    found = [line for line in MEMORY_INFO.read_text().splitlines() if "MemAvailable" in line]
    return int(found[0].split()[1]) * 1024 if found else None


def check_memory(path: Path, needed: int, free: int | None, device: str) -> None:
    """Raise EvaluationError if the weights of `path` need more bytes than are free."""
    if free is not None and needed > free:
        raise EvaluationError(
            f"the weights of {path} need {needed / 1e9:.2f} GB on {device}, where "
            f"{free / 1e9:.2f} GB are free"
        )


def read_tensors(
    path: Path, parameters: Mapping[str, StoredTensor], device: str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Read the parameters to `device`, in `dtype` except those that stay in float32.

    Weights of layers with the same input are adjacent in one allocation. Merged layers can then be
    views, and a compiled policy holds no weight twice.

    Raises:
        EvaluationError: A value is NaN or infinite, or the file is shorter than its header says.
    """
    tensors: dict[str, Tensor] = {}
    places: dict[str, Tensor] = {}
    # For a GPU, one buffer is used for all tensors: allocating memory costs as much as reading.
    most = max(stored.nbytes for stored in parameters.values())
    shared = None if device == "cpu" else torch.empty(most, dtype=torch.uint8)
    with path.open("rb") as file:
        for name, stored in sorted(parameters.items(), key=lambda item: item[1].start):
            raw = torch.empty(stored.nbytes, dtype=torch.uint8) if shared is None else shared
            raw = raw[: stored.nbytes]
            file.seek(stored.start)
            if file.readinto(raw.numpy()) != stored.nbytes:  # type: ignore[arg-type]
                raise EvaluationError(f"{path} ends in the middle of {name}")
            value = raw.view(DTYPES[stored.dtype]).view(stored.shape)
            value = value.to(device).to(parameter_dtype(name, dtype))
            if not torch.stack(value.aminmax()).isfinite().all():  # NaN makes both extremes NaN
                raise EvaluationError(f"{path}: {name} holds NaN or infinity")
            if neighbours(name) and name not in places:
                places |= _adjacent(neighbours(name), parameters, value)
            tensors[name] = places[name].copy_(value) if name in places else value
    return tensors


def _adjacent(
    names: Sequence[str], parameters: Mapping[str, StoredTensor], like: Tensor
) -> dict[str, Tensor]:
    """Memory for parameters of the same width, adjacent in one allocation."""
    rows = [parameters[name].shape[0] for name in names]
    places = torch.split(like.new_empty(sum(rows), *like.shape[1:]), rows)
    return dict(zip(names, places, strict=True))


def parameter_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a parameter is loaded in, where most are in `dtype`."""
    return torch.float32 if is_kept_float32(name) else dtype
