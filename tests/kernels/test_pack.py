"""The layout in which the CTAs of the persistent kernel find their weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from expert_reference import random_codes, random_e4m3
from test_fragments import as_multiplied

from duqsweep.errors import EvaluationError
from duqsweep.kernels import nvrtc
from duqsweep.kernels.expert.limits import SIZES
from duqsweep.kernels.expert.pack import pack
from duqsweep.kernels.expert.persistent import (
    Constants,
    PersistentLoop,
    constants_of,
    unsupported_reason,
)
from duqsweep.kernels.expert.tiling import ExpertShape
from duqsweep.kernels.expert.weights import LayerWeights
from duqsweep.kernels.projection_weights import ProjectionWeights

CLUSTERS = 15
CTAS = 8 * CLUSTERS
SHAPE = ExpertShape(10, **SIZES, action_dim=32)
QKV, MIXED = 2560, 2048


def layer(form: int | Literal["e4m3"], grouped: bool = False) -> LayerWeights:
    """form: bits of integers, or e4m3."""
    torch.manual_seed(4)
    sizes = [(QKV, 1024), (1024, MIXED), (8192, 1024), (1024, 4096)]
    if form == "e4m3":
        return LayerWeights(*(random_e4m3(*size, 16) for size in sizes))
    return LayerWeights(*(random_codes(*size, form, 16, grouped) for size in sizes))


def codes_of(weight: ProjectionWeights) -> torch.Tensor:
    """As int8, also the bytes of e4m3."""
    return weight.unpacked.view(torch.int8).cpu()


def permutation_of(weight: ProjectionWeights) -> torch.Tensor:
    assert weight.permutation is not None
    return weight.permutation.long().cpu()


@pytest.mark.parametrize(("form", "parts"), [(4, 1), (4, 2), (8, 1), ("e4m3", 1)])
def test_each_cta_finds_its_outputs_and_channels(form: int | Literal["e4m3"], parts: int) -> None:
    weights = layer(form)
    packed = pack(SHAPE, [weights, weights], CTAS, parts)
    assert all(len(part) == 2 for part in vars(packed).values())

    def found(part: torch.Tensor, cta: int, tiles: int) -> torch.Tensor:
        """The codes of a cta, (tiles * 8, channels)."""
        return as_multiplied(part[1, cta].cpu().view(tiles, -1, 32, 16), form == 4)

    qkv = codes_of(weights.qkv).view(-1, 2, 128, 1024).transpose(1, 2).reshape(QKV, 1024)  # pairs
    for cta in (0, 37, CTAS // parts - 1):
        own = found(packed.qkv, cta, 3 * parts)
        for slot in range(3 * parts):
            tile = cta + slot * CTAS // parts
            expected = qkv[tile * 8 : tile * 8 + 8]
            assert torch.equal(own[slot * 8 : slot * 8 + len(expected)], expected)
    gate, up = codes_of(weights.gate_up).view(2, 4096, 1024)[:, permutation_of(weights.down)]
    pairs = torch.stack((gate, up), dim=1).flatten(0, 1)
    for cta in (0, 50, 56, 113 // parts):
        expected = pairs[cta * 72 * parts :][: 72 * parts]
        assert torch.equal(found(packed.gate_up, cta, 9 * parts)[: len(expected)], expected)
    for part, weight, width in ((packed.o, weights.o, 256), (packed.down, weights.down, 512)):
        for cluster, rank in ((0, 0), (3, 7), (14, 2)):
            expected = codes_of(weight)[cluster * 72 :][:72, rank * width : (rank + 1) * width]
            own = found(part, cluster * 8 + rank, 9)
            assert torch.equal(own[: len(expected)], expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_and_permutations_are_packed_too(bits: int) -> None:
    weights = layer(bits)
    packed = pack(SHAPE, [weights], CTAS)
    unit = (
        1 / 16 if bits == 4 else 1.0
    )  # the kernel multiplies int4 weights as 16 times their value
    assert torch.equal(packed.down_scales[0], weights.down.scales[:, 0] * unit)
    gate, up = (
        weights.gate_up.scales[:, 0].cpu().view(2, 4096)[:, permutation_of(weights.down)] * unit
    )
    assert torch.equal(packed.gate_up_scales[0].cpu()[:8192:2], gate)
    assert torch.equal(packed.gate_up_scales[0].cpu()[1:8192:2], up)
    orders = packed.permutations[0].long().cpu()
    assert torch.equal(orders[0], permutation_of(weights.qkv))
    assert torch.equal(orders[2:].flatten()[permutation_of(weights.o)], torch.arange(MIXED))


def test_the_kernel_is_compiled_for_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "max_active_clusters", lambda ctas, threads: 15)
    constants = constants_of(SHAPE, [layer(4)] * 18)
    given = constants.definitions(chunked=False)
    assert (given["QMAX"], given["FORMAT"], given["E4M3"]) == ("127.0f", 4, 0)
    given = constants_of(SHAPE, [layer("e4m3")]).definitions(chunked=False)
    assert (given["QMAX"], given["FORMAT"], given["E4M3"]) == ("448.0f", 8, 1)
    assert [constants.definitions(chunked)["CHUNKED"] for chunked in (False, True)] == [0, 1]
    parts = {
        (tokens, bits): replace(constants, tokens=tokens, format=bits).parts
        for tokens in (16, 17)
        for bits in (4, 8)
    }
    assert parts == {(16, 4): 1, (17, 4): 2, (16, 8): 1, (17, 8): 1}


def test_keys_come_in_chunks_only_where_they_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "build", lambda _, definitions: definitions["CHUNKED"])
    constants = Constants(50, 8, False, block=16, qmax=127.0, layers=18, action=32, clusters=15)
    loop = SimpleNamespace(constants=constants, longest_at_once=718)
    chunked = [PersistentLoop.kernel(loop, prefix) for prefix in (1, 534, 718, 719, 1024)]
    assert chunked == [0, 0, 0, 1, 1]


def test_a_product_that_one_cta_did_not_compute_is_not_counted() -> None:
    loop = SimpleNamespace(
        name="w4a8",
        ctas=CTAS,
        counters=torch.tensor([7, 180 * CTAS, 180 * CTAS, 180 * CTAS - 1, 0]),
    )
    done = {"qkv": 180, "o": 180, "gate_up": 179, "down": 0}
    expected = {f"expert_loop_{product}_w4a8": times for product, times in done.items()}
    assert PersistentLoop.products_done(loop) == expected


def test_the_reason_names_what_the_kernel_cannot_run() -> None:
    weights = layer(8)

    def reason(layers: list[LayerWeights], width: int = 1024, **other: torch.dtype) -> str | None:
        dtype = other.get("dtype", torch.bfloat16)
        return unsupported_reason(replace(SHAPE, width=width), layers, dtype)

    plain = replace(weights, down=ProjectionWeights(torch.zeros(1024, 4096)))
    assert reason([weights, plain]) == "1 of 8 products do not multiply integers or e4m3"
    with pytest.raises(EvaluationError, match="multiplies integers or e4m3"):
        pack(SHAPE, [plain], CTAS)
    assert reason([weights, layer(4)]) == "its products have several formats"
    assert reason([weights, layer("e4m3")]) == "its products have several formats"
    assert reason([layer(8, grouped=True)]) == "its weights have a scale per group of channels"
    assert reason([weights], width=512) == "it has a width of 512, not 1024"
    in_float = reason([weights], dtype=torch.float32)
    assert in_float == "the policy is in float32, not bfloat16"
    if not torch.cuda.is_available():
        assert reason([weights]) == "there is no GPU with thread block clusters (Hopper or later)"


def test_the_reason_names_what_the_gpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [layer(4)]

    def reason(
        capability: tuple[int, int] = (9, 0), cuda: str = "12.8", clusters: int = 15
    ) -> str | None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(nvrtc, "max_active_clusters", lambda ctas, threads: clusters)
        return unsupported_reason(SHAPE, weights, torch.bfloat16)

    assert reason() is None
    assert (
        reason(capability=(8, 0)) == "there is no GPU with thread block clusters (Hopper or later)"
    )
    assert reason(cuda="12.6") == "torch's CUDA, 12.6, is older than 12.8"
    assert reason(clusters=13) == "fewer than 14 clusters fit on the GPU at once"
