"""Launches the kernel that holds all denoising steps of the expert: `cuda/expert_loop.cu`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from duqsweep.errors import EvaluationError
from duqsweep.kernels import nvrtc
from duqsweep.kernels.expert.limits import (
    SIZES,
    ProductFormat,
    loop_formats_reason,
    loop_sizes_reason,
)
from duqsweep.kernels.expert.pack import RANKS
from duqsweep.kernels.expert.tiling import ExpertShape
from duqsweep.kernels.expert.weights import LayerWeights
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import HOPPER

THREADS = 512
FEWEST_CLUSTERS, MOST_CLUSTERS = 14, 16
OLDEST_CUDA = (12, 8)  # whose compiler knows a fence of one direction
KEYS_TOGETHER = 16  # a rank holds its keys in multiples of so many rows
PRODUCTS = ("qkv", "o", "gate_up", "down")  # in the order in which the kernel counts them
PADDING = 8  # channels behind a key, so that rows lie in different banks of shared memory


@dataclass(frozen=True)
class Constants:
    """What the kernel is compiled for."""

    tokens: int
    format: int  # bits of a stored code
    block: int  # channels of a rotation; 1: none
    top: float  # the largest code of a token
    layers: int
    action: int
    clusters: int  # that the GPU runs at once

    def definitions(self) -> dict[str, int | str]:
        """For the preprocessor."""
        found: dict[str, int | str] = {
            field.name.upper(): getattr(self, field.name) for field in fields(self)
        }
        return {**found, "TOP": f"{self.top:.1f}f"}


def unsupported_reason(
    shape: ExpertShape, layers: Sequence[LayerWeights], dtype: torch.dtype, longest_prefix: int
) -> str | None:
    """Why the kernel cannot run an expert on the current device; None: it can.

    Args:
        shape: Sizes.
        layers: Weights.
        dtype: Of the stream between the layers.
        longest_prefix: Tokens that the policy may come with.
    """
    weights = [weight for layer in layers for weight in layer.products()]
    reason = loop_formats_reason(
        [
            ProductFormat(weight.format, weight.groups, weight.block, weight.act_bits)
            for weight in weights
        ]
    )
    if reason is not None:
        return reason
    if dtype != torch.bfloat16:
        return f"the policy is in {str(dtype).removeprefix('torch.')}, not bfloat16"
    reason = loop_sizes_reason(vars(shape))
    if reason is not None:
        return reason
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < HOPPER:
        return "there is no GPU with clusters of programs"
    if tuple(int(part) for part in str(torch.version.cuda).split(".")) < OLDEST_CUDA:
        return f"torch's CUDA, {torch.version.cuda}, is too old for the kernel"
    if nvrtc.clusters_at_once(RANKS, THREADS) < FEWEST_CLUSTERS:
        return f"the GPU runs fewer than {FEWEST_CLUSTERS} clusters at once"
    if room_for_prefix(constants_of(shape, layers)) < longest_prefix:
        return f"a prefix may have {longest_prefix} tokens, too many for a cluster"
    return None


def constants_of(shape: ExpertShape, layers: Sequence[LayerWeights]) -> Constants:
    """What the kernel is compiled for, for weights without an `unsupported_reason`."""
    weight = layers[0].qkv
    return Constants(
        tokens=shape.tokens,
        format=weight.stored_bits,
        block=weight.block,
        top=weight.act_qmax,
        layers=len(layers),
        action=shape.action_dim,
        clusters=min(nvrtc.clusters_at_once(RANKS, THREADS), MOST_CLUSTERS),
    )


def compiled(constants: Constants) -> nvrtc.Kernel:
    """The kernel; compiled at the first time in a process."""
    programs = RANKS * constants.clusters
    return nvrtc.build("expert_loop", constants.definitions(), programs, THREADS)


def room_for_prefix(constants: Constants) -> int:
    """Tokens of the prefix that a cluster has room for."""
    return RANKS * compiled(constants).told["most_keys"] - constants.tokens


class Loop:
    """The compiled kernel with its scratch space."""

    def __init__(self, constants: Constants, name: str, device: torch.device) -> None:
        """Compile it, at the first time in a process.

        Args:
            constants: What for.
            name: Of the weights' format, as kernels are counted.
            device: A GPU.

        Raises:
            EvaluationError: It does not compile.
        """
        self.constants, self.name = constants, name
        self.kernel = compiled(constants)
        mixed = SIZES["heads"] * SIZES["head_dim"]

        def room(columns: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(constants.tokens, columns, dtype=dtype, device=device)

        self.buffers = {
            "stream": room(SIZES["width"], torch.bfloat16),
            "queries": room(mixed, torch.bfloat16),
            "keys": room(SIZES["head_dim"], torch.bfloat16),
            "values": room(SIZES["head_dim"], torch.bfloat16),
            "hidden": room(SIZES["hidden"], torch.bfloat16),
            "mixed_codes": room(mixed, torch.int8),
            "hidden_codes": room(SIZES["hidden"], torch.int8),
            "mixed_scales": room(1, torch.float32),
            "hidden_scales": room(1, torch.float32),
        }
        self.counters = torch.zeros(1 + len(PRODUCTS), dtype=torch.int32, device=device)

    @property
    def longest_prefix(self) -> int:
        """Tokens that there is room for."""
        return room_for_prefix(self.constants)

    def spread(self, prefix: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Give each rank of a cluster its share of the keys and values.

        Args:
            prefix: Of each layer keys and values, each (1, tokens, head_dim).

        Returns:
            (layers * 2, ranks, rows, padded head_dim), zeros where there is no prefix token.

        Raises:
            EvaluationError: The prefix is longer than there is room for.
        """
        together = torch.stack([part[0] for layer in prefix for part in layer])
        length = together.shape[1]
        if length > self.longest_prefix:
            raise EvaluationError(
                f"the expert's kernel attends to {self.longest_prefix} prefix tokens at most, "
                f"got {length}"
            )
        keys = -(-(length + self.constants.tokens) // RANKS)
        rows = -(-keys // KEYS_TOGETHER) * KEYS_TOGETHER
        whole, rest = divmod(length, keys)
        room = together.new_zeros(len(together), RANKS, rows, together.shape[-1] + PADDING)
        inside = room[..., : together.shape[-1]]
        inside[:, :whole, :keys] = together[:, : whole * keys].unflatten(1, (whole, keys))
        if rest:
            inside[:, whole, :rest] = together[:, whole * keys :]
        return room

    def run(self, tensors: Mapping[str, Tensor], prefix: int, steps: int) -> None:
        """Launch all denoising steps.

        Args:
            tensors: By the names of the kernel's arguments, its scratch space apart; without gaps.
            prefix: Tokens that `keys_values` holds.
            steps: Of the schedule.
        """
        self.counters.zero_()
        counters = {"arrivals": self.counters[:1], "done": self.counters[1:]}
        given = {**tensors, **self.buffers, **counters}
        pointers = (given[name].data_ptr() for name in POINTERS)
        self.kernel.launch(_Arguments(*pointers, prefix, steps))
        note("expert_loop")

    def products_done(self) -> dict[str, int]:
        """How often the last launch made each product, as its programs counted it; waits for it.

        A product that not every program has made counts as not made.
        """
        return {
            f"expert_loop_{product}_{self.name}": total // self.kernel.programs
            for product, total in zip(PRODUCTS, self.counters[1:].tolist(), strict=True)
        }


POINTERS = (
    *PRODUCTS,
    *("qkv_scales", "o_scales", "gate_up_scales", "down_scales"),
    *("orders", "modulations", "out_weight", "out_bias", "in_weight", "in_bias"),
    *("noise", "actions", "cosines", "sines"),
    *("stream", "queries", "keys", "values", "hidden", "mixed_codes", "hidden_codes"),
    *("mixed_scales", "hidden_scales", "keys_values", "arrivals", "done"),
)


class _Arguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("prefix", ctypes.c_int),
        ("steps", ctypes.c_int),
    )
