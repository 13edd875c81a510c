"""Products of int8 or FP8 codes on the warp groups of Hopper: launches `cuda/gemm.cu`."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass, replace
from typing import cast

import torch
from torch import Tensor

from duqsweep.kernels import nvrtc
from duqsweep.kernels.epilogue import NOTHING, Epilogue, EpilogueKind
from duqsweep.kernels.launches import note
from duqsweep.kernels.machine import HOPPER
from duqsweep.kernels.norms import Norm
from duqsweep.kernels.per_token_quant import per_token_quant
from duqsweep.kernels.projection_weights import ProjectionWeights, take_rows
from duqsweep.kernels.rotary import Rotary
from duqsweep.kernels.torch_operator import fake_of, operator
from duqsweep.kernels.unfinished import ProductParts, Rows, finished

CHANNELS = 128  # per step
GROUP = 128  # outputs of a warp group: `row_order` permutes within it
FINISH_THREADS = 256
FINISH_OUTPUTS = 4 * FINISH_THREADS  # of a CTA that adds up parts
KINDS: tuple[EpilogueKind, ...] = ("nothing", "gelu", "gated", "rotary")  # of EPILOGUE
STAGE_LIMIT = 226 * 1024  # bytes of shared memory for all stages
MOST_STAGES = 9
SMALL_LIMIT = 210 * 1024  # of small products, beside CTAs of the kernel before
TILE_STEP = 16  # tokens
WIDEST_TILE, WIDEST_PACKED = 208, 192  # tokens; with more, the registers do not suffice
WIDEST_SMALL, WIDEST_OF_TWO = 128, 112  # the same of small products, and with two CTAs
ROTARY_TOKENS = 48  # of a warp group: their angles fit into registers
WIDEST_ROTARY = 3 * ROTARY_TOKENS
CODE_FACTOR = 16  # int4 codes are multiplied in the high halves of bytes
# From these, `division_for` estimates times. They fit those of 15 divisions on an H200.
TOKEN_CLOCKS, STEP_CLOCKS, PACKED_STEP_CLOCKS = 8, 260, 190  # a step: per token, and besides
EPILOGUE_CLOCKS = 24  # per token of a tile
PART_BYTES = 1300  # per clock of all multiprocessors: sums of parts, stored and loaded again
LARGE = 1 << 25  # channels times outputs of a weight that is divided into tiles of 256 outputs


@dataclass(frozen=True)
class Division:
    """How a product is divided; see `cuda/gemm.cu`."""

    tile_tokens: int  # a multiple of 16 per token group
    split: int = 1
    output_groups: int = 2
    token_groups: int = 1
    ctas: int = 1  # per multiprocessor

    @property
    def outputs(self) -> int:
        """Outputs of a tile."""
        return self.output_groups * GROUP

    @property
    def group_tokens(self) -> int:
        """Tokens of a warp group."""
        return self.tile_tokens // self.token_groups

    @property
    def threads(self) -> int:
        """Threads of a CTA."""
        copying = 128 if self.group_tokens > 128 else 32
        return 128 * self.output_groups * self.token_groups + copying

    def stages(self, packed: bool) -> int:
        """As many steps as fit into shared memory.

        Args:
            packed: The weight is int4.
        """
        row_bytes = self.outputs // 2 if packed else self.outputs
        limit = STAGE_LIMIT if self.output_groups > 1 else SMALL_LIMIT // self.ctas
        return min(MOST_STAGES, limit // ((row_bytes + self.tile_tokens) * CHANNELS))


def division_for(
    tokens: int,
    outputs: int,
    channels: int,
    packed: bool,
    multiprocessors: int,
    kind: EpilogueKind = "nothing",
) -> Division:
    """The fastest division by an estimate.

    Args:
        tokens: Of the product, as the next three.
        outputs: Of the weight.
        channels: Of the weight.
        packed: The weight is int4.
        multiprocessors: Of the GPU.
        kind: Of the epilogue.
    """
    small = outputs * channels < LARGE
    division = _small_division(tokens, outputs, multiprocessors, kind) if small else None
    return division or _large_division(tokens, outputs, channels, packed, multiprocessors)


def _small_division(
    tokens: int, outputs: int, multiprocessors: int, kind: EpilogueKind
) -> Division | None:
    """The narrowest tiles of which a multiprocessor computes one, or two at the same time.

    None: These would be too wide.
    """
    rotary = kind == "rotary"
    step = ROTARY_TOKENS if rotary else TILE_STEP
    for ctas, widest in ((1, WIDEST_ROTARY if rotary else WIDEST_SMALL), (2, WIDEST_OF_TWO)):
        tiles = multiprocessors * ctas // -(-outputs // GROUP)  # of tokens
        tile_tokens = -(-tokens // (max(tiles, 1) * step)) * step
        if tiles and tile_tokens <= widest:
            groups = tile_tokens // ROTARY_TOKENS if rotary else 1
            return Division(tile_tokens, output_groups=1, token_groups=groups, ctas=ctas)
    return None


def _large_division(
    tokens: int, outputs: int, channels: int, packed: bool, multiprocessors: int
) -> Division:
    """The least clocks by an estimate, among all tiles of 256 outputs."""
    widest = WIDEST_PACKED if packed else WIDEST_TILE
    output_tiles, steps = -(-outputs // (2 * GROUP)), -(-channels // CHANNELS)
    step_clocks = PACKED_STEP_CLOCKS if packed else STEP_CLOCKS

    def clocks(division: Division) -> float:
        tile, split = division.tile_tokens, division.split
        ctas = -(-tokens // tile) * output_tiles * split
        turns = -(-ctas // multiprocessors)
        made = turns * -(-steps // split) * (TOKEN_CLOCKS * tile + step_clocks)
        if split == 1:
            return made + turns * EPILOGUE_CLOCKS * tile
        return made + split * tokens * outputs * 4 / PART_BYTES

    divisions = []
    for tile in range(TILE_STEP, widest + 1, TILE_STEP):
        tiles = -(-tokens // tile) * output_tiles
        divisions.append(Division(tile, min(max(1, multiprocessors // tiles), steps)))
    return min(divisions, key=clocks)


def unsupported_reason(weight: ProjectionWeights, dtype: torch.dtype) -> str | None:
    """Why Triton's kernel computes this product instead; None: this one does.

    Args:
        weight: Integer weight, or one in e4m3.
        dtype: Of the rows that are multiplied.
    """
    if weight.values.device.type != "cuda" or torch.cuda.get_device_capability() != HOPPER:
        return "warp groups are a feature of Hopper"
    if dtype != torch.bfloat16:
        return f"it stores bfloat16, not {str(dtype).removeprefix('torch.')}"
    if weight.groups > 1:
        return "the weight has a scale per group of channels"
    if weight.out_features % GROUP or weight.in_features % (CHANNELS if weight.packed else 32):
        return f"{weight.out_features} x {weight.in_features} is no multiple of its tiles"
    if weight.is_e4m3 and weight.out_features * weight.in_features < LARGE:
        return "torch multiplies weights of this size in e4m3, and adds more exactly"
    return None


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


def ordered(weight: ProjectionWeights, pairs: bool) -> ProjectionWeights:
    """The weight with its rows in `row_order`, and its int4 codes in `fragments`."""
    turned = take_rows(weight, row_order(weight.out_features, pairs).to(weight.values.device))
    if not weight.packed:
        return turned
    assert turned.scales is not None
    scales = turned.scales / CODE_FACTOR
    return replace(turned, values=fragments(turned.unpacked), scales=scales)


def fragments(codes: Tensor) -> Tensor:
    """Int4 codes in the order in which the kernel reads them: (out, in) int8 → (out, in / 2) uint8.

    Blocks of 128 rows, then of 64 channels, then of 64 rows, a slab. There, each of 128 threads has
    16 bytes: its registers of two wgmma instructions. Two registers of four codes are one word, the
    first one in the high halves of its bytes.

    Args:
        codes: From -8 to 7, rows in `row_order`.
    """
    outputs, channels = codes.shape
    # Of group, slab, warp, half, row; block of channels, instruction, register / 2, lane % 4, byte.
    sizes = (outputs // GROUP, 2, 4, 2, 8, channels // 64, 2, 2, 4, 4)
    turned = codes.to(torch.uint8).view(sizes).permute(3, 0, 5, 1, 2, 4, 8, 6, 7, 9)
    return (turned[0] << 4 | turned[1] & 15).reshape(outputs, channels // 2)


@operator
def gemm_linear(
    rows: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    permutation: Tensor | None,
    block: int,
    bits: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    kind: str,
    residual: Tensor | None,
) -> Tensor:
    """Norm, permute, rotate and quantize tokens, and multiply them.

    An operator, so that torch.compile calls it as it is.

    Args:
        rows: (tokens, in) bfloat16.
        values: (out, in) int8 or float8_e4m3fn, or (out, in / 2) uint8 of int4; `ordered`.
        scales: (out, 1) float32; `ordered`.
        bias: (out,) bfloat16.
        permutation: (in,) int32, the input channel of each permuted position.
        block: Channels per Hadamard block; 1: no rotation.
        bits: Bits of an integer code.
        norm_weight: (in,) float32, permuted; None: no norm.
        norm_bias: (in,) float32, permuted; None: an RMS norm.
        kind: Of the epilogue, but "rotary".
        residual: (tokens, out) bfloat16, added last.

    Returns:
        (tokens, out) in bfloat16, or (tokens, out / 2) for epilogue "gated".
    """
    norm = None if norm_weight is None else Norm(norm_weight, norm_bias)
    weight = ProjectionWeights(values, scales, bias, permutation, block, bits)
    epilogue = Epilogue(cast(EpilogueKind, kind), residual)
    return finished(unfinished_linear(rows, weight, norm, epilogue))


@fake_of(gemm_linear)
def _(
    rows: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    permutation: Tensor | None,
    block: int,
    bits: int,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    kind: str,
    residual: Tensor | None,
) -> Tensor:
    return rows.new_empty(len(rows), len(values) // 2 if kind == "gated" else len(values))


def unfinished_linear(
    rows: Rows, weight: ProjectionWeights, norm: Norm | None, epilogue: Epilogue
) -> Rows:
    """`gemm_linear`, with a result that may be unfinished; the weight is `ordered`."""
    codes, token_scales = per_token_quant(
        rows, weight.permutation, weight.block, weight.act_bits, norm, e4m3=weight.is_e4m3
    )
    sizes = len(codes), weight.out_features, weight.in_features
    division = division_for(*sizes, weight.packed, nvrtc.multiprocessors(), epilogue.kind)
    assert weight.scales is not None
    made = gemm(
        codes,
        token_scales,
        weight.values,
        weight.scales,
        weight.bias,
        division,
        epilogue,
    )
    note(f"gemm_{weight.format}")
    return made


def gemm(
    codes: Tensor,
    token_scales: Tensor,
    values: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    division: Division,
    epilogue: Epilogue = NOTHING,
) -> Rows:
    """Multiply quantized tokens by a weight whose rows, scales and bias are in `row_order`.

    Args:
        codes: (tokens, in) int8 or float8_e4m3fn.
        token_scales: (tokens,) float32.
        values: (out, in), of the same dtype; or (out, in / 2) uint8 for int8: `fragments`.
        scales: (out, 1) float32; those of `fragments` divided by `CODE_FACTOR`.
        bias: (out,) bfloat16.
        division: How to divide the work.
        epilogue: Applied to the product before it is stored.

    Returns:
        (tokens, out) in bfloat16, or (tokens, out / 2) for epilogue "gated"; unfinished if the
        division splits the channels.
    """
    (tokens, channels), outputs = codes.shape, len(values)
    packed = values.dtype == torch.uint8
    width = outputs // 2 if epilogue.kind == "gated" else outputs
    out = torch.empty(tokens, width, dtype=torch.bfloat16, device=codes.device)
    cosines, sines = epilogue.table or (None, None)
    fp8 = codes.dtype == torch.float8_e4m3fn
    constants = definitions(division, epilogue, fp8, packed, bias is not None)
    header = wgmma_header(division.group_tokens, fp8)
    kernel = nvrtc.build("gemm", constants, headers={"wgmma.cuh": header})
    tiles = -(-tokens // division.tile_tokens) * -(-outputs // division.outputs)
    at_once = nvrtc.multiprocessors() * division.ctas // division.split  # tiles
    ctas = division.split * min(tiles, max(1, at_once))
    parts = None
    if division.split > 1:
        kind = torch.float32 if fp8 else torch.int32
        sizes = (division.split, tokens, outputs)
        parts = torch.empty(sizes, dtype=kind, device=codes.device)
    arguments = _Arguments(
        (ctypes.c_ubyte * 128)()
        if packed
        else nvrtc.row_major_map(values, division.outputs, CHANNELS),
        nvrtc.row_major_map(codes, division.tile_tokens, CHANNELS),
        *(
            None if tensor is None else tensor.data_ptr()
            for tensor in (
                values if packed else None,
                scales,
                token_scales,
                bias,
                epilogue.residual,
                cosines,
                sines,
                out,
                parts,
            )
        ),
        tokens,
        outputs,
        channels,
    )
    kernel.launch_early(arguments, (ctas, 1), division.threads)
    if parts is None:
        return out

    def add_up() -> None:
        finish = nvrtc.build(
            "gemm", constants, headers={"wgmma.cuh": header}, function="gemm_finish"
        )
        finish.launch_early(arguments, (-(-outputs // FINISH_OUTPUTS), tokens), FINISH_THREADS)
        note("gemm_finish")

    return ProductParts(
        out=out,
        parts=parts,
        add_up=add_up,
        weight_scales=scales,
        token_scales=token_scales,
        bias=bias,
        residual=epilogue.residual,
    )


def definitions(
    division: Division, epilogue: Epilogue, fp8: bool, packed: bool, biased: bool
) -> dict[str, int]:
    """What `cuda/gemm.cu` is compiled with."""
    rotary = epilogue.rotary or Rotary(2, 0)
    return {
        "FP8": int(fp8),
        "PACKED": int(packed),
        **{name.upper(): value for name, value in asdict(division).items()},
        "STAGES": division.stages(packed),
        "EPILOGUE": KINDS.index(epilogue.kind),
        "BIASED": int(biased),
        "RESIDUAL": int(epilogue.residual is not None),
        "HEAD_DIM": rotary.head_dim,
        "ROTARY_HEADS": rotary.heads,
    }


def wgmma_header(tokens: int, fp8: bool) -> str:
    """The header wgmma.cuh: one instruction, 64 outputs times `tokens` tokens times 32 channels."""
    count = tokens // 2  # registers of a lane
    kind, letter = ("f32.e4m3.e4m3", "f") if fp8 else ("s32.s8.s8", "r")
    value = "float" if fp8 else "int"
    places = ", ".join(f"%{i}" for i in range(count))
    sums = ", ".join(f'"+{letter}"(d[{i}])' for i in range(count))
    signs = ", 1, 1" if fp8 else ""
    registers = ", ".join(f"%{count + i}" for i in range(4))
    instruction = f"wgmma.mma_async.sync.aligned.m64n{tokens}k32.{kind} {{{places}}}"
    return f"""#pragma once
// d (+)= weight x tokens; the sum starts at zero unless `more`.
DEVICE void wgmma({value} (&d)[{count}], u64 weight, u64 tokens, bool more) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{count + 2}, 0;"
                 "  {instruction}, %{count}, %{count + 1}, p{signs}; }}"
                 : {sums} : "l"(weight), "l"(tokens), "r"((int)more));
}}
// The same with a weight in registers.
DEVICE void wgmma({value} (&d)[{count}], const u32 (&weight)[4], u64 tokens, bool more) {{
    asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{count + 5}, 0;"
                 "  {instruction}, {{{registers}}}, %{count + 4}, p{signs}; }}"
                 : {sums}
                 : "r"(weight[0]), "r"(weight[1]), "r"(weight[2]), "r"(weight[3]),
                   "l"(tokens), "r"((int)more));
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
                "packed",
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
