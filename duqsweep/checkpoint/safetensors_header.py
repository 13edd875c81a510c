"""What a safetensors file holds, read from its header alone; needs no torch."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duqsweep.checkpoint.json_file import LONGEST_KEY
from duqsweep.errors import ConfigError

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}  # the dtypes in which weights come
LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file."""

    dtype: str  # safetensors' name of it, e.g. "BF16"
    shape: tuple[int, ...]
    start: int  # its first byte, counted from the start of the file
    nbytes: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of a file by its name.

    Raises:
        ConfigError: It is no safetensors file, or cut short, or holds numbers of another kind.

    Source: the format's own page, github.com/huggingface/safetensors (8 bytes of length, JSON).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LONGEST_HEADER
        if length >= min(size, LONGEST_HEADER):
            raise ConfigError(f"{path} is not a safetensors file")
        header = file.read(length)
    try:
        entries = json.loads(header)
        if not isinstance(entries, dict):
            raise TypeError("its header is not an object")
        entries.pop("__metadata__", None)
        stored = {name: _stored(path, name, entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"{path} is not a safetensors file: {error}") from error
    end = max((held.start + held.nbytes for held in stored.values()), default=0)
    if end > size:
        raise ConfigError(f"{path} is cut short: it has {size} bytes of {end}")
    return stored


def _stored(path: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    if not name.isprintable() or len(name) > LONGEST_KEY:
        raise ValueError(f"{name[:80]!r} is no tensor's name")
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        allowed = ", ".join(ITEM_BYTES)
        raise ConfigError(f"{path}: {name} is {str(dtype)[:20]!r}; allowed are {allowed}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"shape and data_offsets of {name!r} must be whole numbers from 0 up")
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ConfigError(f"{path}: the header gives {name} {end - begin} bytes for {shape}")
    return StoredTensor(dtype, shape, data_start + begin, end - begin)
