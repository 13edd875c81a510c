"""The cache of quantized layers: one file per pack, named by the hash of everything that shaped it.

Settings that do not shape a pack (activation bits, denoising steps, the kernel) are not in its
name, so that trials which differ only there share it: each setting of the quantizer declares it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from duqsweep.errors import EvaluationError
from duqsweep.files import write_bytes
from duqsweep.fingerprint import digest
from duqsweep.quant.quantizer import code_dtype
from duqsweep.quant.select import permutes, rotates_twice, shares_rotation
from duqsweep.setting import declared_settings
from duqsweep.spec import FULL_PRECISION, QuantSpec, numbers_of

# Weight → its version and its hash.
_HASHES: MutableMapping[Tensor, tuple[int, str]] = WeakTensorKeyDictionary()
FORMAT = 3  # raise it when the same settings give other numbers

Expected = dict[str, tuple[tuple[int, ...], torch.dtype]]  # name → shape and dtype


@dataclass(frozen=True)
class Pack:
    """One layer, transformed and quantized. None stands for the identity."""

    weight: Tensor  # (out, in): int8 or float8_e4m3fn codes, or float32: not quantized
    scales: Tensor | None  # (out, groups) float32; None with a float32 weight
    factors: Tensor | None  # (in,) float32: inputs are divided by them
    order: Tensor | None  # (in,) int64: then reordered
    rotation: Tensor | None  # (1 or blocks, block, block) float32: then rotated
    row_rotation: Tensor | None  # (1 or blocks, block, block) float32: multiplies the outputs
    first_rotation: Tensor | None = None  # (1, block, block) float32: before the reordering

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, without those that are None."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def pack_key(
    weights_id: str,
    layer: str,
    weight: Tensor,
    weight_bits: int,
    quant: QuantSpec,
    act_max: Tensor,
    samples: Tensor | None = None,
) -> str:
    """Name of the pack that `build_pack` would give for these arguments; 16 hex digits.

    Args:
        weights_id: Names the checkpoint.
        layer: Dotted name of the layer.
        weight: (out, in) its weight; every byte counts.
        weight_bits: 2 to 8, or 16.
        quant: The settings, of which those count that declare that they shape such a pack.
        act_max: (in,) from calibration; counts where permutation or smoothing look at it.
        samples: (n, in) from calibration; count where the greedy rotation is made for them.
    """
    rounded = weight_bits < FULL_PRECISION
    shaped_by: dict[str, Any] = {
        "format": FORMAT,
        "checkpoint": weights_id,
        "layer": layer,
        "weight": _weight_hash(weight),
        "weight_bits": weight_bits,
        "settings": {
            name: getattr(quant, name)
            for name, setting in declared_settings(QuantSpec).items()
            if setting.changes_pack(quant, rounded)
        },
    }
    if rounded and numbers_of(quant) != "integer":
        shaped_by["numbers"] = numbers_of(quant)
    zigzags = permutes(quant) and quant.permutation == "zigzag"
    greedy = quant.rotation == "greedy"
    if (zigzags and not greedy) or quant.smoothing > 0:
        shaped_by["act_max"] = _tensor_hash(act_max)
    if greedy and samples is not None:
        shaped_by["samples"] = _tensor_hash(samples)
    return digest(shaped_by)


def load_or_build(pack_dir: Path, key: str, expected: Expected, build: Callable[[], Pack]) -> Pack:
    """The pack named `key` from `pack_dir`, made and stored first if it is not there.

    Args:
        pack_dir: Folder of the cache; made if missing.
        key: From `pack_key`.
        expected: What the pack must have, from `expected_tensors`.
        build: Makes the pack.

    Raises:
        EvaluationError: The file is damaged, was renamed, or its tensors are not the expected ones.
    """
    path = pack_dir / f"{key}.safetensors"
    if not path.exists():
        pack_dir.mkdir(parents=True, exist_ok=True)
        _write(path, key, build())
    return _read(path, key, expected)


def expected_tensors(shape: tuple[int, int], weight_bits: int, quant: QuantSpec) -> Expected:
    """Every tensor in the pack of a layer (out, in) under these settings."""
    shapes = _shapes(shape, weight_bits, quant)
    dtypes = dict.fromkeys(shapes, torch.float32)
    if "order" in shapes:
        dtypes["order"] = torch.int64
    if "scales" in shapes:
        dtypes["weight"] = code_dtype(numbers_of(quant))
    return {name: (shapes[name], dtypes[name]) for name in shapes}


def _shapes(
    shape: tuple[int, int], weight_bits: int, quant: QuantSpec
) -> dict[str, tuple[int, ...]]:
    rows, columns = shape
    block = quant.block_size
    shapes: dict[str, tuple[int, ...]] = {"weight": shape}
    if weight_bits < FULL_PRECISION:
        group = quant.weight_group_size
        shapes["scales"] = (rows, columns // group if group else 1)
    if quant.smoothing > 0:
        shapes["factors"] = (columns,)
    if permutes(quant):
        shapes["order"] = (columns,)
    shared = shares_rotation(quant)
    if quant.rotation != "none":
        shapes["rotation"] = (1 if shared else columns // block, block, block)
    if rotates_twice(quant):
        shapes["first_rotation"] = (1, block, block)
    if quant.row_rotation:
        shapes["row_rotation"] = (1 if shared else rows // block, block, block)
    return shapes


def _write(path: Path, key: str, pack: Pack) -> None:
    tensors = {name: tensor.cpu().contiguous() for name, tensor in pack.tensors().items()}
    write_bytes(path, save(tensors, metadata={"key": key}))


def _read(path: Path, key: str, expected: Expected) -> Pack:
    try:
        with safe_open(path, framework="pt") as file:
            stored_key = (file.metadata() or {}).get("key")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise EvaluationError(f"pack {path} is damaged ({error}); delete it") from error
    if stored_key != key:
        raise EvaluationError(f"pack {path} holds the key {stored_key!r}, not {key!r}; delete it")
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    if found != expected:
        raise EvaluationError(f"pack {path} holds {found}, not {expected}; delete it")
    absent = dict.fromkeys(field.name for field in fields(Pack))
    return Pack(**{**absent, **tensors})


def _weight_hash(weight: Tensor) -> str:
    """`_tensor_hash`, computed again only after a change: at full size it takes seconds."""
    known = _HASHES.get(weight)
    if known is None or known[0] != weight._version:
        known = _HASHES[weight] = (weight._version, _tensor_hash(weight))
    return known[1]


def _tensor_hash(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous()
    content = hashlib.sha256(f"{data.dtype} {tuple(data.shape)} ".encode())
    content.update(data.view(torch.uint8).numpy().data)
    return content.hexdigest()
