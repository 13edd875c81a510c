"""Layers in C++ compute what the modules of torch do, in float64 as an independent reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from duqsweep.inference.cpp_layer import cpp_layer
from duqsweep.kernels import compiled_files, cpp_layers
from duqsweep.policy.gemma import ExpertLayer, PrefixLayer, rotary_table
from duqsweep.policy.siglip import SiglipLayer
from duqsweep.quant.calibrate import LayerStats
from duqsweep.quant.freeze import freeze
from duqsweep.quant.linear import RoundTokens
from duqsweep.spec import QuantSpec

Case = tuple[nn.Module, tuple[Any, ...]]  # a layer and its inputs

BOUND = 1e-4  # of results of about 1 to 10; float32 has 7 digits
MARGIN = 5e-4  # in codes: float32 may round to another code when a quotient is as near to a tie


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A layer with random weights, some linear layers quantized; sizes divide no panel evenly."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 2))
    head_dim = 2 * draw(st.integers(1, 18))
    width, mlp = 16 * draw(st.integers(1, 4)), 16 * draw(st.integers(1, 5))
    batch, tokens = draw(st.integers(1, 2)), draw(st.integers(1, 11))
    kind = draw(st.sampled_from([SiglipLayer, PrefixLayer, ExpertLayer]))
    layer: nn.Module
    x = torch.randn(batch, tokens, width)
    table = rotary_table(torch.arange(3, 3 + tokens), head_dim)
    inputs: tuple[Any, ...] = (x,)
    if kind is SiglipLayer:
        width = heads * head_dim
        sizes = VisionSizes(width, 1, mlp, heads, 8, 64)
        layer, inputs = SiglipLayer(sizes), (torch.randn(batch, tokens, width),)
    else:
        stack = StackSizes(width, 1, mlp, heads, kv_heads, head_dim)
        layer = kind(stack)
        inputs = (x, table)
    if kind is ExpertLayer:
        earlier = draw(st.integers(1, 40))
        modulations = torch.randn(2, draw(st.sampled_from([1, batch])), 3, width)
        prefix = tuple(torch.randn(2, batch, kv_heads, earlier, head_dim))
        inputs = (x, table, prefix, tuple(modulations))
    for name, tensor in layer.named_parameters():
        nn.init.normal_(tensor, std=tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.1)
        assert "dense" not in name or kind is ExpertLayer
    names = [name for name, part in layer.named_modules() if isinstance(part, nn.Linear)]
    names = [name for name in names if not name.endswith("dense")]
    quantize(layer, [name for name in names if draw(st.booleans())], draw)
    return layer, inputs


def quantize(layer: nn.Module, names: list[str], draw: st.DrawFn) -> None:
    block = draw(st.sampled_from([16, 32]))
    names = [name for name in names if inputs_of(layer, name) % block == 0]
    quant = QuantSpec(
        kernel="fake",
        block_size=block,
        rotation=draw(st.sampled_from(["hadamard", "none"])),
        permutation=draw(st.sampled_from(["zigzag", "none"])),
    )
    bits = draw(st.sampled_from([2, 4, 8])), draw(st.sampled_from([4, 8]))
    stats = {name: LayerStats(torch.rand(inputs_of(layer, name)) + 0.5, None) for name in names}
    freeze(layer, dict.fromkeys(names, bits), quant, stats, None, "id")


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
def test_a_layer_computes_as_its_module(case: Case) -> None:
    layer, inputs = case
    reference = copy.deepcopy(layer).double()
    ties = Ties(reference)
    expected = reference(*wide(inputs))
    assume(ties.nearest > MARGIN)
    before = [tensor.clone() for tensor in flat(inputs)]
    call = cpp_layer(layer)
    assert call is not None
    for found, wanted in zip(flat(call(*inputs)), flat(expected), strict=True):
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() < BOUND * max(1.0, wanted.abs().max())
    assert all(map(torch.equal, flat(inputs), before))


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
