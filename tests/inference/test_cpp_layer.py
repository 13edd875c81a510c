"""Layers in C++ compute what the modules of torch do, in float64 as an independent reference."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import StackSizes, VisionSizes
from duqsweep.errors import EvaluationError
from duqsweep.inference import cpp_layer as module
from duqsweep.inference.cpp_expert import CppExpert, has_cpp_expert
from duqsweep.inference.cpp_layer import cpp_layer
from duqsweep.kernels import compiled_files, cpp_layers
from duqsweep.policy.gemma import PrefixLayer, rotary_table
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.random_pi05 import small_sizes
from duqsweep.policy.siglip import SiglipLayer
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.freeze import freeze
from duqsweep.quant.linear import RoundTokens
from duqsweep.spec import QuantSpec

BOUND = 1e-4  # of results of about 1 to 10; float32 has 7 digits
MARGIN = 5e-4  # in codes: float32 may round to another code when a quotient is as near to a tie


@dataclass(frozen=True)
class Case:
    """What is called, in torch, and in C++ once it has been quantized."""

    module: nn.Module
    inputs: tuple[Any, ...]
    compiled: Callable[[nn.Module], Callable[..., Any] | None]
    run: Callable[[Any], Callable[..., Any]] = lambda module: module


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Random weights, some linear layers quantized; most sizes divide no panel evenly."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kv_heads = draw(st.integers(1, 3))
    sizes = StackSizes(
        width=16 * draw(st.integers(1, 4)),
        depth=draw(st.integers(1, 2)),
        mlp=16 * draw(st.integers(1, 5)),
        heads=kv_heads * draw(st.integers(1, 2)),
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 18)),
    )
    batch, tokens = draw(st.integers(1, 2)), draw(st.integers(1, 11))
    make = draw(st.sampled_from([vision_case, prefix_case, expert_case]))
    case = make(sizes, batch, tokens, draw)
    for tensor in case.module.parameters():
        nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.1)
    quantize(case.module, draw)
    return case


def vision_case(sizes: StackSizes, batch: int, tokens: int, draw: st.DrawFn) -> Case:
    width = sizes.heads * sizes.head_dim
    layer = SiglipLayer(VisionSizes(width, 1, sizes.mlp, sizes.heads, 8, 64))
    return Case(layer, (torch.randn(batch, tokens, width),), cpp_layer)


def prefix_case(sizes: StackSizes, batch: int, tokens: int, draw: st.DrawFn) -> Case:
    x = torch.randn(batch, tokens, sizes.width)
    return Case(
        PrefixLayer(sizes), (x, rotary_table(torch.arange(tokens), sizes.head_dim)), cpp_layer
    )


def expert_case(sizes: StackSizes, batch: int, tokens: int, draw: st.DrawFn) -> Case:
    policy = replace(small_sizes(), llm=sizes, expert=sizes, action_dim=draw(st.integers(1, 9)))
    vision = replace(policy.vision, width=16, mlp=16, heads=1, depth=1, patch_px=112)
    module = Pi05(replace(policy, vision=vision, vocabulary=2))
    earlier = draw(st.integers(1, 40))
    cache = tuple(
        tuple(torch.randn(2, batch, sizes.kv_heads, earlier, sizes.head_dim))
        for _ in range(sizes.depth)
    )
    modulations = draw(st.sampled_from([1, batch]))
    modulation = torch.randn(2 * sizes.depth + 1, modulations, 3, sizes.width)
    inputs = torch.randn(batch, tokens, policy.action_dim), cache, modulation
    return Case(module, inputs, compiled_velocity, lambda module: module.velocity)


def compiled_velocity(module: nn.Module) -> CppExpert | None:
    assert isinstance(module, Pi05)
    return CppExpert(module) if has_cpp_expert(module) else None


def quantize(module: nn.Module, draw: st.DrawFn) -> None:
    block = draw(st.sampled_from([16, 32]))
    names = [
        name
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear) and re.search("self_attn|mlp", name)
    ]
    names = [name for name in names if inputs_of(module, name) % block == 0]
    quant = QuantSpec(
        kernel="fake",
        block_size=block,
        rotation=draw(st.sampled_from(["hadamard", "none"])),
        permutation=draw(st.sampled_from(["zigzag", "none"])),
    )
    bits = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from([4, 8]))
    names = [name for name in names if draw(st.booleans())]
    stats = {name: LayerStats(torch.rand(inputs_of(module, name)) + 0.5, None) for name in names}
    freeze(module, dict.fromkeys(names, bits), quant, stats, None, "id")


def inputs_of(layer: nn.Module, name: str) -> int:
    found = layer.get_submodule(name).in_features
    assert isinstance(found, int)
    return found


def flat(nested: Any) -> Iterator[Tensor]:
    for item in nested if isinstance(nested, tuple) else (nested,):
        if isinstance(item, tuple):
            yield from flat(item)
        else:
            yield item


def wide(nested: Any) -> Any:
    return tuple(map(wide, nested)) if isinstance(nested, tuple) else nested.double()


class Ties:
    """How near quotients came to where two codes are as near, while a layer was called."""

    def __init__(self, layer: nn.Module) -> None:
        self.nearest = 0.5
        for part in layer.modules():
            if isinstance(part, RoundTokens):
                part.register_forward_pre_hook(self._look)

    def _look(self, part: RoundTokens, inputs: tuple[Tensor]) -> None:
        (rows,) = inputs
        codes = rows / rows.abs().amax(-1, keepdim=True) * (2 ** (part.bits - 1) - 1)
        to_tie = (codes - codes.floor() - 0.5).abs()
        self.nearest = min(self.nearest, to_tie.min().item())


@settings(max_examples=150, deadline=None)
@given(cases())
@torch.no_grad()
def test_the_code_computes_as_the_modules(case: Case) -> None:
    reference = copy.deepcopy(case.module).double()
    ties = Ties(reference)
    expected = case.run(reference)(*wide(case.inputs))
    assume(ties.nearest > MARGIN)
    before = [tensor.clone() for tensor in flat(case.inputs)]
    call = case.compiled(case.module)
    assert call is not None
    for found, wanted in zip(flat(call(*case.inputs)), flat(expected), strict=True):
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < BOUND * max(1.0, wanted.abs().max())
    assert all(map(torch.equal, flat(case.inputs), before))


SIZES = StackSizes(width=48, depth=1, mlp=80, heads=4, kv_heads=2, head_dim=10)


def prefix_layer(dtype: torch.dtype = torch.float32, sizes: StackSizes = SIZES) -> PrefixLayer:
    torch.manual_seed(0)
    layer = PrefixLayer(sizes).to(dtype)
    for tensor in layer.parameters():
        nn.init.normal_(tensor, std=0.2)
    return layer


def seen(tokens: int = 9) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    return torch.randn(1, tokens, SIZES.width), rotary_table(torch.arange(tokens), SIZES.head_dim)


@torch.no_grad()
def test_the_number_of_threads_changes_nothing() -> None:
    layer, inputs, threads = prefix_layer(), seen(), torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            call = cpp_layer(layer)
            assert call is not None
            results.append(list(flat(call(*inputs))))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@torch.no_grad()
def test_not_a_number_stays_one() -> None:
    x, table = seen()
    x[0, 4, 7] = torch.nan
    call = cpp_layer(prefix_layer())
    assert call is not None
    result, _ = call(x, table)
    assert result[0, 4].isnan().all()


@torch.no_grad()
def test_weights_live_as_long_as_the_call() -> None:
    layer, inputs = prefix_layer(), seen()
    expected, _ = layer(*inputs)
    call = cpp_layer(layer)
    del layer
    waste = [torch.full((512, 512), torch.nan) for _ in range(20)]  # takes memory that is free
    assert call is not None
    result, _ = call(*inputs)
    assert torch.allclose(result, expected, atol=BOUND)
    assert waste


def looped(layer: PrefixLayer) -> None:
    name = "mlp.down_proj"
    stats = {name: LayerStats(torch.ones(SIZES.mlp), None)}
    freeze(layer, {name: (4, 8)}, QuantSpec(kernel="loop", block_size=16), stats, None, "id")


def nothing(layer: PrefixLayer) -> None:
    pass


@pytest.mark.parametrize(
    ("layer", "change"),
    [
        (prefix_layer(torch.bfloat16), nothing),
        (prefix_layer(sizes=replace(SIZES, mlp=module.WIDEST + 8)), nothing),
        (prefix_layer(), looped),  # the slow baseline stays slow
        (nn.Linear(4, 4), nothing),
    ],
    ids=["bfloat16", "wide", "loop", "no layer"],
)
def test_other_layers_are_left_to_torch(layer: Any, change: Callable[[Any], None]) -> None:
    change(layer)
    assert cpp_layer(layer) is None


def test_an_expert_with_another_layer_is_left_to_torch() -> None:
    module = Pi05(small_sizes())
    assert has_cpp_expert(module)
    name = "paligemma_with_expert.gemma_expert.model.layers.2.mlp.down_proj"
    stats = {name: LayerStats(torch.ones(inputs_of(module, name)), None)}
    freeze(module, {name: (4, 8)}, QuantSpec(kernel="loop", block_size=16), stats, None, "id")
    assert not has_cpp_expert(module)


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing is compiled yet; the folder for it."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    monkeypatch.setattr(compiled_files, "_folder", lambda: folder)
    cpp_layers.library.cache_clear()
    yield folder
    cpp_layers.library.cache_clear()


def test_without_a_compiler_the_error_says_what_to_do(
    anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(anew))
    monkeypatch.setenv("CXX", "mycc")
    with pytest.raises(EvaluationError, match=r"none of mycc, c\+\+, clang\+\+ is on PATH"):
        cpp_layer(prefix_layer())


def test_what_a_failing_compiler_says_is_in_the_error(
    anew: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = anew / "mycc"
    compiler.write_text("#!/bin/sh\necho 'no such option: -std=c++17' >&2\nexit 3\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(EvaluationError, match=r"exit code 3\):\nno such option: -std=c\+\+17"):
        cpp_layer(prefix_layer())
    assert list(anew.glob("*.so")) == []


def test_code_that_cannot_be_loaded_is_named(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_layers, "_compiled", lambda compiler, options: b"no machine code")
    with pytest.raises(EvaluationError, match=r"layers-.*\.so: .*; delete the file .* XDG_CACHE"):
        cpp_layer(prefix_layer())


def test_processes_on_a_machine_compile_once(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpp_layers.library()
    (made,) = anew.glob("layers-*.so")
    changed = made.stat().st_mtime_ns
    cpp_layers.library.cache_clear()
    cpp_layers.library()
    assert made.stat().st_mtime_ns == changed
    monkeypatch.setattr(cpp_layers, "_processor", lambda: b"another")
    cpp_layers.library.cache_clear()
    cpp_layers.library()
    assert len(list(anew.glob("layers-*.so"))) == 2
