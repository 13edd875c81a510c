"""Launches the products of int8 or FP8 codes on Hopper's warp groups: `cuda/gemm.cu`."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from duqsweep.kernels import nvrtc
from duqsweep.kernels.epilogue import NOTHING, Epilogue
from duqsweep.kernels.launches import note
from duqsweep.kernels.projection_weights import ProjectionWeights
from duqsweep.kernels.rotary import Rotary

OUTPUTS, CHANNELS = 256, 128  # of a tile, and per step
GROUP = 128  # outputs of a warp group: `row_order` permutes within it
THREADS, FINISH_THREADS = 384, 256
KINDS = ("nothing", "gelu", "gated", "rotary")  # the values of EPILOGUE
STAGE_LIMIT = 226 * 1024  # bytes of shared memory for all stages
MULTIPLE = 16  # of the tokens of a tile


@dataclass(frozen=True)
class GemmConfig:
    """How a product is divided; see `cuda/gemm.cu`."""

    tile_tokens: int
    shared_by: int = 1
    split: int = 1

    @property
    def stages(self) -> int:
        """As many steps as fit into shared memory, at most 6."""
        return min(6, STAGE_LIMIT // ((OUTPUTS + self.tile_tokens) * CHANNELS))


def row_order(outputs: int, pairs: bool) -> Tensor:
    """(outputs,): which row of a weight stands where, in the order that the kernel reads.

    Args:
        outputs: A multiple of 128.
        pairs: Outputs 2i and 2i + 1 belong together, for the epilogues "gated" and "rotary".
    """
    group, slab, warp, half, pair, one = torch.meshgrid(
        *(torch.arange(count) for count in (outputs // GROUP, 2, 4, 2, 4, 2)), indexing="ij"
    )
    if pairs:
        number = group * (GROUP // 2) + warp * 16 + pair * 4 + slab * 2 + one
        return (2 * number + half).flatten()
    return (group * GROUP + warp * 32 + pair * 8 + slab * 4 + half * 2 + one).flatten()


def gemm(
    codes: Tensor,
    token_scales: Tensor,
    weight: ProjectionWeights,
    config: GemmConfig,
    epilogue: Epilogue = NOTHING,
    constant_weight: bool = True,
) -> Tensor:
    """Multiply quantized tokens by a weight whose rows are in `row_order`.

    Args:
        codes: (tokens, in) int8 or float8_e4m3fn.
        token_scales: (tokens,) float32.
        weight: (out, in) codes of the same type, one scale per row.
        config: How to divide the work.
        epilogue: Applied to the product before it is stored.
        constant_weight: No kernel that still runs writes the weight.

    Returns:
        (tokens, out) in bfloat16, or (tokens, out / 2) for epilogue "gated".
    """
    tokens, outputs = len(codes), weight.out_features
    width = outputs // 2 if epilogue.kind == "gated" else outputs
    out = torch.empty(tokens, width, dtype=torch.bfloat16, device=codes.device)
    rotary = epilogue.rotary or Rotary(2, 0)
    cosines, sines = epilogue.table or (None, None)
    constants = {
        "FP8": int(codes.dtype == torch.float8_e4m3fn),
        **{name.upper(): value for name, value in asdict(config).items()},
        "STAGES": config.stages,
        "EPILOGUE": KINDS.index(epilogue.kind),
        "BIASED": int(weight.bias is not None),
        "RESIDUAL": int(epilogue.residual is not None),
        "HEAD_DIM": rotary.head_dim,
        "ROTARY_HEADS": rotary.heads,
        "CONSTANT_WEIGHT": int(constant_weight),
    }
    header = wgmma_header(config.tile_tokens, codes.dtype == torch.float8_e4m3fn)
    kernel = nvrtc.build("gemm", constants, headers={"wgmma.cuh": header})
    tiles = -(-tokens // config.tile_tokens) * -(-outputs // (OUTPUTS * config.shared_by))
    ctas = config.shared_by * config.split  # that work together
    teams = min(tiles, max(1, nvrtc.multiprocessors() // ctas))
    parts = None
    if config.split > 1:
        sizes = (config.split, tiles, config.tile_tokens // 8, 2, 256, 4)
        parts = torch.empty(sizes, dtype=torch.int32, device=codes.device)
    arguments = _Arguments(
        nvrtc.row_major_map(weight.values, OUTPUTS, CHANNELS),
        nvrtc.row_major_map(codes, config.tile_tokens // config.shared_by, CHANNELS),
        *(
            None if tensor is None else tensor.data_ptr()
            for tensor in (
                weight.scales,
                token_scales,
                weight.bias,
                epilogue.residual,
                cosines,
                sines,
                out,
                parts,
            )
        ),
        tokens,
        outputs,
        weight.in_features,
    )
    kernel.launch_early(arguments, (teams * ctas, 1), THREADS, config.shared_by)
    if parts is not None:
        finish = nvrtc.build(
            "gemm", constants, headers={"wgmma.cuh": header}, function="gemm_finish"
        )
        finish.launch_early(arguments, (config.tile_tokens // 8, tiles), FINISH_THREADS)
    note("gemm_fp8" if constants["FP8"] else "gemm_int8")
    return out


def wgmma_header(tokens: int, fp8: bool) -> str:
    """The header wgmma.cuh: one instruction, 64 outputs times `tokens` tokens times 32 channels."""
    count = tokens // 2  # registers of a lane
    kind, letter = ("f32.e4m3.e4m3", "f") if fp8 else ("s32.s8.s8", "r")
    value = "float" if fp8 else "int"
    places = ", ".join(f"%{i}" for i in range(count))
    sums = ", ".join(f'"+{letter}"(d[{i}])' for i in range(count))
    signs = ", 1, 1" if fp8 else ""
    return f"""#pragma once
// d (+)= weight x tokens; the sum starts at zero unless `more`.
DEVICE void wgmma({value} (&d)[{count}], u64 weight, u64 tokens, bool more) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{count + 2}, 0;"
                 "  wgmma.mma_async.sync.aligned.m64n{tokens}k32.{kind}"
                 " {{{places}}}, %{count}, %{count + 1}, p{signs}; }}"
                 : {sums} : "l"(weight), "l"(tokens), "r"((int)more));
}}
// The compiler may not move accesses to d across this.
DEVICE void hold({value} (&d)[{count}]) {{
#pragma unroll
    for (int i = 0; i < {count}; i++) asm volatile("" : "+{letter}"(d[i])::"memory");
}}
"""


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("weight", ctypes.c_ubyte * 128),
        ("codes", ctypes.c_ubyte * 128),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "weight_scales",
                "token_scales",
                "bias",
                "residual",
                "cosines",
                "sines",
                "out",
                "parts",
            )
        ),
        *((name, ctypes.c_int) for name in ("tokens", "outputs", "channels")),
        ("padding", ctypes.c_ubyte * 64),
    )
