"""Launches the persistent kernel of the expert's denoising loop: `cuda/expert_loop.cu`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from duqsweep.kernels import nvrtc
from duqsweep.kernels.expert.limits import (
    SIZES,
    TOKENS,
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
MIN_CLUSTERS, MAX_CLUSTERS = 14, 16
MIN_CUDA = (12, 8)  # the first whose NVRTC compiles `fence.release`
KEY_TILE = 16  # the rows of a rank's keys are a multiple of it
PRODUCTS = ("qkv", "o", "gate_up", "down")  # in the order of the kernel's counters
PADDING = 8  # channels after each key, so that rows use different banks of shared memory


@dataclass(frozen=True)
class Constants:
    """The preprocessor constants of `cuda/expert_loop.cu`."""

    tokens: int  # 1 to 64
    format: int  # bits of a stored weight: 4 or 8
    e4m3: bool  # whether codes are 8-bit floats, not integers
    block: int  # channels per rotation block; 1: no rotation
    qmax: float  # largest quantized activation
    layers: int
    action: int  # channels of an action
    clusters: int  # active at the same time

    @property
    def parts(self) -> int:
        """Parts of the tokens that the ranks of a cluster divide in the products after a norm.

        Two halve the codes that arrive at a rank, and double its weights, which must be small.
        """
        return 2 if self.format == 4 and self.tokens > TOKENS else 1

    def definitions(self, chunked: bool) -> dict[str, int | str]:
        """The preprocessor definitions.

        Args:
            chunked: Whether a rank may have more keys than fit into its shared memory.
        """
        found: dict[str, int | str] = {
            field.name.upper(): getattr(self, field.name) for field in fields(self)
        }
        return {
            **found,
            "E4M3": int(self.e4m3),
            "PARTS": self.parts,
            "QMAX": f"{self.qmax:.1f}f",
            "CHUNKED": int(chunked),
        }


def unsupported_reason(
    shape: ExpertShape, layers: Sequence[LayerWeights], dtype: torch.dtype
) -> str | None:
    """Why the kernel cannot run this expert on the current device; None: it can.

    Args:
        shape: Sizes of the expert.
        layers: Weights of its layers.
        dtype: Dtype of the residual stream.
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
        return "there is no GPU with thread block clusters (Hopper or later)"
    if tuple(int(part) for part in str(torch.version.cuda).split(".")) < MIN_CUDA:
        return f"torch's CUDA, {torch.version.cuda}, is older than {MIN_CUDA[0]}.{MIN_CUDA[1]}"
    if nvrtc.max_active_clusters(RANKS, THREADS) < MIN_CLUSTERS:
        return f"fewer than {MIN_CLUSTERS} clusters fit on the GPU at once"
    return None


def constants_of(shape: ExpertShape, layers: Sequence[LayerWeights]) -> Constants:
    """The kernel's constants, for weights without an `unsupported_reason`."""
    weight = layers[0].qkv
    return Constants(
        tokens=shape.tokens,
        format=weight.stored_bits,
        e4m3=weight.is_e4m3,
        block=weight.block,
        qmax=weight.act_qmax,
        layers=len(layers),
        action=shape.action_dim,
        clusters=min(nvrtc.max_active_clusters(RANKS, THREADS), MAX_CLUSTERS),
    )


class PersistentLoop:
    """The compiled kernel with its scratch buffers."""

    def __init__(
        self, constants: Constants, name: str, device: torch.device, longest_prefix: int
    ) -> None:
        """Compile the kernel, unless this process has already, and allocate its buffers.

        Args:
            constants: What to compile the kernel for.
            name: Format of the weights ("w4a8", "w8a8", "e4m3"), in the names of counted products.
            device: A GPU.
            longest_prefix: The most prefix tokens that the policy can produce.

        Raises:
            EvaluationError: The kernel does not compile.
        """
        self.constants, self.name = constants, name
        kernel = nvrtc.build("expert_loop", constants.definitions(chunked=False))
        # The most prefix tokens whose keys and values fit into the shared memory of a cluster.
        self.longest_at_once = RANKS * kernel.constant("max_keys") - constants.tokens
        self.kernel(longest_prefix)  # compiled now, not in a call
        self.ctas = RANKS * constants.clusters
        attn = SIZES["heads"] * SIZES["head_dim"]
        codes = torch.float8_e4m3fn if constants.e4m3 else torch.int8

        def rows(columns: int, dtype: torch.dtype, buffers: int = 2) -> Tensor:
            return torch.zeros(buffers, constants.tokens, columns, dtype=dtype, device=device)

        # Of even and of odd iterations of the loop over steps and layers; the third residual
        # stream is that between attention and MLP.
        self.buffers = {
            "stream": rows(SIZES["width"], torch.bfloat16, buffers=3),
            "queries": rows(attn, torch.bfloat16),
            "keys": rows(SIZES["head_dim"], torch.bfloat16),
            "values": rows(SIZES["head_dim"], torch.bfloat16),
            "hidden": rows(SIZES["hidden"], torch.bfloat16),
            "attn_codes": rows(attn, codes),
            "hidden_codes": rows(SIZES["hidden"], codes),
            "attn_scales": rows(1, torch.float32),
            "hidden_scales": rows(1, torch.float32),
        }
        self.counters = torch.zeros(1 + len(PRODUCTS), dtype=torch.int32, device=device)

    def kernel(self, prefix: int) -> nvrtc.Kernel:
        """The kernel for that many prefix tokens.

        The form that also takes keys in chunks is slower, even where there is only one chunk: its
        attention needs more registers than there are.
        """
        chunked = prefix > self.longest_at_once
        return nvrtc.build("expert_loop", self.constants.definitions(chunked))

    def divide_among_ranks(self, prefix: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Divide the keys and values among the ranks of a cluster.

        Args:
            prefix: Keys and values of each layer, each (1, tokens, head_dim), of any number of
                tokens; a rank whose part does not fit into its shared memory handles it in chunks.

        Returns:
            (layers * 2, ranks, rows, padded head_dim), zeros where there is no prefix token.
        """
        together = torch.stack([part[0] for layer in prefix for part in layer])
        length = together.shape[1]
        keys = -(-(length + self.constants.tokens) // RANKS)
        rows = -(-keys // KEY_TILE) * KEY_TILE
        whole, rest = divmod(length, keys)
        divided = together.new_zeros(len(together), RANKS, rows, together.shape[-1] + PADDING)
        inside = divided[..., : together.shape[-1]]
        inside[:, :whole, :keys] = together[:, : whole * keys].unflatten(1, (whole, keys))
        if rest:
            inside[:, whole, :rest] = together[:, whole * keys :]
        return divided

    def run(self, tensors: Mapping[str, Tensor], prefix: int, steps: int) -> None:
        """Launch all denoising steps.

        Args:
            tensors: The kernel's arguments by name, without its scratch buffers; contiguous.
            prefix: Number of prefix tokens in `keys_values`.
            steps: Denoising steps.
        """
        self.counters.zero_()
        counters = {"arrivals": self.counters[:1], "product_counts": self.counters[1:]}
        given = {**tensors, **self.buffers, **counters}
        pointers = (given[name].data_ptr() for name in POINTERS)
        arguments = _Arguments(*pointers, prefix, steps)
        self.kernel(prefix).launch_at_once(arguments, self.ctas, THREADS)
        note("expert_loop")

    def products_done(self) -> dict[str, int]:
        """How often the last launch computed each product, counted on the GPU; waits for it.

        A product counts once all CTAs have computed their part of it.
        """
        return {
            f"expert_loop_{product}_{self.name}": total // self.ctas
            for product, total in zip(PRODUCTS, self.counters[1:].tolist(), strict=True)
        }


POINTERS = (
    *PRODUCTS,
    *("qkv_scales", "o_scales", "gate_up_scales", "down_scales"),
    *("permutations", "modulations", "out_weight", "out_bias", "in_weight", "in_bias"),
    *("step_sizes", "noise", "actions", "cosines", "sines"),
    *("stream", "queries", "keys", "values", "hidden", "attn_codes", "hidden_codes"),
    *("attn_scales", "hidden_scales", "keys_values", "arrivals", "product_counts"),
)


class _Arguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("prefix", ctypes.c_int),
        ("steps", ctypes.c_int),
    )
