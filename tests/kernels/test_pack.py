"""Where the programs of the loop's kernel find their weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from expert_reference import random_codes
from test_fragments import as_multiplied

from duqsweep.errors import EvaluationError
from duqsweep.kernels import nvrtc
from duqsweep.kernels.expert.limits import SIZES
from duqsweep.kernels.expert.pack import pack
from duqsweep.kernels.expert.persistent import Constants, Loop, unsupported_reason
from duqsweep.kernels.expert.tiling import ExpertShape
from duqsweep.kernels.expert.weights import LayerWeights
from duqsweep.kernels.projection_weights import ProjectionWeights

CLUSTERS = 15
PROGRAMS = 8 * CLUSTERS
SHAPE = ExpertShape(10, **SIZES, action_dim=32)
QKV, MIXED = 2560, 2048


def layer(bits: int, grouped: bool = False) -> LayerWeights:
    torch.manual_seed(bits)
    sizes = [(QKV, 1024), (1024, MIXED), (8192, 1024), (1024, 4096)]
    return LayerWeights(*(random_codes(*size, bits, 16, grouped) for size in sizes))


def codes_of(weight: ProjectionWeights) -> torch.Tensor:
    return weight.unpacked.cpu()


def order_of(weight: ProjectionWeights) -> torch.Tensor:
    assert weight.permutation is not None
    return weight.permutation.long().cpu()


@pytest.mark.parametrize("bits", [4, 8])
def test_each_program_finds_its_outputs_and_channels(bits: int) -> None:
    weights = layer(bits)
    packed = pack(SHAPE, [weights, weights], PROGRAMS)
    assert all(len(part) == 2 for part in vars(packed).values())

    def found(part: torch.Tensor, program: int, tiles: int) -> torch.Tensor:
        """The codes of a program, (tiles * 8, channels)."""
        return as_multiplied(part[1, program].cpu().view(tiles, -1, 32, 16), bits == 4)

    qkv = codes_of(weights.qkv).view(-1, 2, 128, 1024).transpose(1, 2).reshape(QKV, 1024)  # pairs
    for program in (0, 37, 119):
        own = found(packed.qkv, program, 3)
        for slot in range(3):
            tile = program + slot * PROGRAMS
            expected = qkv[tile * 8 : tile * 8 + 8]
            assert torch.equal(own[slot * 8 : slot * 8 + len(expected)], expected)
    gate, up = codes_of(weights.gate_up).view(2, 4096, 1024)[:, order_of(weights.down)]
    pairs = torch.stack((gate, up), dim=1).flatten(0, 1)
    for program in (0, 50, 113):
        expected = pairs[program * 72 : program * 72 + 72]
        assert torch.equal(found(packed.gate_up, program, 9)[: len(expected)], expected)
    for part, weight, width in ((packed.o, weights.o, 256), (packed.down, weights.down, 512)):
        for cluster, rank in ((0, 0), (3, 7), (14, 2)):
            expected = codes_of(weight)[cluster * 72 :][:72, rank * width : (rank + 1) * width]
            own = found(part, cluster * 8 + rank, 9)
            assert torch.equal(own[: len(expected)], expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_and_orders_lie_beside(bits: int) -> None:
    weights = layer(bits)
    packed = pack(SHAPE, [weights], PROGRAMS)
    unit = 1 / 16 if bits == 4 else 1.0  # int4 codes are multiplied as 16 times what they are
    assert torch.equal(packed.down_scales[0], weights.down.scales[:, 0] * unit)
    gate, up = weights.gate_up.scales[:, 0].cpu().view(2, 4096)[:, order_of(weights.down)] * unit
    assert torch.equal(packed.gate_up_scales[0].cpu()[:8192:2], gate)
    assert torch.equal(packed.gate_up_scales[0].cpu()[1:8192:2], up)
    orders = packed.orders[0].long().cpu()
    assert torch.equal(orders[0], order_of(weights.qkv))
    assert torch.equal(orders[2:].flatten()[order_of(weights.o)], torch.arange(MIXED))


def test_the_kernel_is_told_what_it_is_compiled_for() -> None:
    constants = Constants(10, format=4, block=16, top=127.0, layers=18, action=32, clusters=15)
    assert constants.definitions()["TOP"] == "127.0f"
    assert constants.definitions()["FORMAT"] == 4


def test_a_product_that_one_program_did_not_make_counts_as_not_made() -> None:
    loop = SimpleNamespace(
        name="w4a8",
        kernel=nvrtc.Kernel(None, {}, PROGRAMS, threads=512),
        counters=torch.tensor([7, 180 * PROGRAMS, 180 * PROGRAMS, 180 * PROGRAMS - 1, 0]),
    )
    done = {"qkv": 180, "o": 180, "gate_up": 179, "down": 0}
    expected = {f"expert_loop_{product}_w4a8": times for product, times in done.items()}
    assert Loop.products_done(loop) == expected


def test_what_the_kernel_cannot_run_is_said() -> None:
    weights = layer(8)

    def against(layers: list[LayerWeights], width: int = 1024, **other: torch.dtype) -> str | None:
        dtype = other.get("dtype", torch.bfloat16)
        return unsupported_reason(replace(SHAPE, width=width), layers, dtype, longest_prefix=712)

    plain = replace(weights, down=ProjectionWeights(torch.zeros(1024, 4096)))
    assert against([weights, plain]) == "1 of 8 products are not of integers"
    with pytest.raises(EvaluationError, match="multiplies integers"):
        pack(SHAPE, [plain], PROGRAMS)
    assert against([weights, layer(4)]) == "its products have several formats"
    assert against([layer(8, grouped=True)]) == "its weights have scales of groups of channels"
    assert against([weights], width=512) == "it has a width of 512, not 1024"
    in_float = against([weights], dtype=torch.float32)
    assert in_float == "the policy is in float32, not bfloat16"
    if not torch.cuda.is_available():
        assert against([weights]) == "there is no GPU with clusters of programs"


def test_what_stands_against_it_on_a_gpu_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [layer(4)]

    def against(
        capability: tuple[int, int] = (9, 0), cuda: str = "12.8", clusters: int = 15, keys: int = 96
    ) -> str | None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(nvrtc, "clusters_at_once", lambda programs, threads: clusters)
        kernel = nvrtc.Kernel(None, {"most_keys": keys}, PROGRAMS, threads=512)
        monkeypatch.setattr(nvrtc, "build", lambda *_: kernel)
        return unsupported_reason(SHAPE, weights, torch.bfloat16, longest_prefix=712)

    assert against() is None
    assert against(capability=(8, 0)) == "there is no GPU with clusters of programs"
    assert against(cuda="12.6") == "torch's CUDA, 12.6, is too old for the kernel"
    assert against(clusters=13) == "the GPU runs fewer than 14 clusters at once"
    too_long = "a prefix may have 712 tokens, too many for a cluster"
    assert against(keys=80) == too_long  # 8 ranks of 80 keys, 10 of them the tokens' own
