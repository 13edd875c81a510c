"""Reads weights into their final memory, by several threads; they are never held twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from duqsweep.checkpoint.parameters import is_kept_float32, neighbours
from duqsweep.checkpoint.safetensors_header import StoredTensor
from duqsweep.checkpoint.weights_id import READERS, reader_threads
from duqsweep.errors import EvaluationError

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
PIECE_BYTES = 16 << 20  # that a thread reads at once
BUFFERS = 2  # of a thread: one is filled while the other is copied to a GPU
MEMORY_INFO = Path("/proc/meminfo")


def weight_dtype(device: str) -> torch.dtype:
    """Dtype in which weights are loaded: bfloat16 on a GPU, float32 on a CPU."""
    return torch.float32 if device == "cpu" else torch.bfloat16


def bytes_needed(parameters: Mapping[str, StoredTensor], dtype: torch.dtype) -> int:
    """Bytes of all loaded weights, and of the pieces that are converted at the same time."""
    loaded = sum(
        math.prod(stored.shape) * parameter_dtype(name, dtype).itemsize
        for name, stored in parameters.items()
    )
    return loaded + READERS * BUFFERS * PIECE_BYTES


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
    tensors = _allocated(parameters, torch.device(device), dtype)
    pieces = [piece for name in tensors for piece in _pieces(name, parameters[name], tensors[name])]
    pieces.sort(key=lambda piece: piece.start)
    threads = reader_threads()
    with ThreadPoolExecutor(threads) as readers:
        shares = [pieces[first::threads] for first in range(threads)]
        broken = sorted(set[str]().union(*readers.map(partial(_read, path), shares)))
    if broken:
        raise EvaluationError(f"{path}: {broken[0]} holds NaN or infinity")
    return tensors


@dataclass(frozen=True)
class _Piece:
    """Some numbers of a tensor, one after the other."""

    name: str  # the tensor's
    place: Tensor  # (n,), where they are to be
    dtype: torch.dtype  # in which they are stored
    start: int  # first byte in the file


def _allocated(
    parameters: Mapping[str, StoredTensor], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Memory for all parameters."""
    places: dict[str, Tensor] = {}
    for name, stored in parameters.items():
        if name in places:
            continue
        names = neighbours(name) or (name,)
        rows = [parameters[other].shape[0] for other in names]
        whole = (sum(rows), *stored.shape[1:])
        together = torch.empty(whole, dtype=parameter_dtype(name, dtype), device=device)
        places |= zip(names, torch.split(together, rows), strict=True)
    return places


def _pieces(name: str, stored: StoredTensor, tensor: Tensor) -> Iterator[_Piece]:
    kept = DTYPES[stored.dtype]
    for number, place in enumerate(torch.split(tensor.view(-1), PIECE_BYTES // kept.itemsize)):
        yield _Piece(name, place, kept, stored.start + number * PIECE_BYTES)


def _read(path: Path, pieces: Sequence[_Piece]) -> set[str]:
    """Read pieces of a file to their places; returns the tensors with NaN or infinity in them."""
    if not pieces:
        return set()
    device = pieces[0].place.device
    on_gpu = device.type == "cuda"
    buffers = [
        torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=on_gpu) for _ in range(BUFFERS)
    ]
    copied: list[torch.cuda.Event | None] = [None] * BUFFERS
    extremes = []
    with path.open("rb") as file:
        for number, piece in enumerate(pieces):
            turn = number % BUFFERS
            if (before := copied[turn]) is not None:
                before.synchronize()
            in_place = not on_gpu and piece.dtype == piece.place.dtype
            nbytes = piece.place.numel() * piece.dtype.itemsize
            raw = piece.place.view(torch.uint8) if in_place else buffers[turn][:nbytes]
            file.seek(piece.start)
            if file.readinto(raw.numpy()) != len(raw):  # type: ignore[arg-type]
                raise EvaluationError(f"{path} ends in the middle of {piece.name}")
            if not in_place:
                piece.place.copy_(raw.view(piece.dtype).to(device, non_blocking=True))
            if on_gpu:
                copied[turn] = torch.cuda.current_stream(device).record_event()
            extremes.append(torch.stack(piece.place.aminmax()))  # NaN makes both NaN
    are_finite = torch.stack(extremes).isfinite().all(1).tolist()
    return {
        piece.name for piece, is_finite in zip(pieces, are_finite, strict=True) if not is_finite
    }


def parameter_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a parameter is loaded in, where most are in `dtype`."""
    return torch.float32 if is_kept_float32(name) else dtype
