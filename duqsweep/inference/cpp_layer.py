"""A layer in float32 whose call is one function of `kernels/cpp/layers.cpp`.

The action expert's are called all together, see `cpp_expert`.

Torch's operators take several microseconds each however small their tensors are, and torch's
compiler a second and more per kind of layer. These functions are compiled once per machine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duqsweep.inference.weights import merged, weights_of
from duqsweep.kernels import cpp_layers
from duqsweep.kernels.projection_weights import Numerics, ProjectionWeights
from duqsweep.policy.gemma import ExpertLayer, GemmaAttention, KeysValues, PrefixLayer
from duqsweep.policy.siglip import SiglipAttention, SiglipLayer
from duqsweep.quant.linear import QuantizedLinear

COMPUTED: tuple[Numerics, ...] = ("plain", "simulated")
# Wider layers spend their time in products, which a BLAS multiplies faster.
WIDEST = 1024

Call = Callable[..., Tensor | tuple[Tensor, KeysValues]]


def cpp_layer(layer: nn.Module) -> Call | None:
    """What computes as the layer does, up to rounding; None: the code does not know such layers.

    Args:
        layer: Of a `Pi05`; its parameters must not be changed afterwards.

    Raises:
        EvaluationError: There is no C++ compiler.
    """
    if not is_known(layer):
        return None
    if isinstance(layer, SiglipLayer):
        return _vision(layer)
    return _prefix(layer) if isinstance(layer, PrefixLayer) else None


def is_known(layer: nn.Module) -> bool:
    """Whether the code has all that a layer, or a stack of them, does to its tensors."""
    tensors = [*layer.parameters(), *layer.buffers()]
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors):
        return False
    linears = [part for part in layer.modules() if isinstance(part, (nn.Linear, QuantizedLinear))]
    found = [weights_of(linear) for linear in linears]
    return all(
        weights is not None and weights.numerics in COMPUTED and weights.in_features <= WIDEST
        for weights in found
    )


class Parts:
    """What the compiled code reads, and all that it points to."""

    def __init__(self) -> None:
        self._kept: list[object] = []

    def pointer(self, tensor: Tensor) -> int:
        """To a tensor, which must be contiguous and is kept alive."""
        self._kept.append(tensor)
        return tensor.data_ptr()

    def products(
        self, linears: Sequence[nn.Module]
    ) -> tuple[ctypes.Array[cpp_layers.Product], int]:
        """Layers with the same input: in one product where they transform it in the same way."""
        together = merged(linears, COMPUTED)
        single = [weights_of(linear) for linear in linears] if together is None else [together]
        kept: list[Tensor] = []
        made = [cpp_layers.product(weights, kept) for weights in single if weights is not None]
        array = (cpp_layers.Product * len(made))(*made)
        self._kept += [kept, array]
        return array, len(made)


def _attention(
    parts: Parts, attention: GemmaAttention | SiglipAttention, output: nn.Module
) -> cpp_layers.Attention:
    inputs, count = parts.products((attention.q_proj, attention.k_proj, attention.v_proj))
    outputs, _ = parts.products((output,))
    if isinstance(attention, GemmaAttention):
        head_dim, kv_heads = attention.head_dim, attention.kv_heads
        heads = _outputs(attention.q_proj) // head_dim
    else:
        heads = kv_heads = attention.heads
        head_dim = _outputs(attention.q_proj) // heads
    return cpp_layers.Attention(inputs, outputs, count, heads, kv_heads, head_dim)


def _mlp(parts: Parts, inputs: Sequence[nn.Module], output: nn.Module) -> cpp_layers.Mlp:
    wide, count = parts.products(inputs)
    narrow, _ = parts.products((output,))
    return cpp_layers.Mlp(wide, narrow, count)


def _outputs(linear: nn.Module) -> int:
    weights = weights_of(linear)
    assert isinstance(weights, ProjectionWeights)
    return weights.out_features


def _vision(layer: SiglipLayer) -> Call:
    parts = Parts()
    first, second = (
        cpp_layers.Norm(*(parts.pointer(t.detach()) for t in (norm.weight, norm.bias)))
        for norm in (layer.layer_norm1, layer.layer_norm2)
    )
    made = cpp_layers.Layer(
        first,
        second,
        _attention(parts, layer.self_attn, layer.self_attn.out_proj),
        _mlp(parts, (layer.mlp.fc1,), layer.mlp.fc2),
        len(layer.layer_norm1.weight),
        torch.get_num_threads(),
    )
    run = cpp_layers.library().vision_layer

    def call(x: Tensor) -> Tensor:
        """See `SiglipLayer.forward`."""
        result = _copy(x)
        run(made, result.data_ptr(), *x.shape[:2])
        return result

    return _Called(call, parts)


def _prefix(layer: PrefixLayer) -> Call:
    parts = Parts()
    first, second = (
        cpp_layers.Norm(parts.pointer(1.0 + norm.weight.detach()), None)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    )
    made = gemma_layer(parts, layer, (first, second))
    run = cpp_layers.library().prefix_layer
    kv_heads, head_dim = layer.self_attn.kv_heads, layer.self_attn.head_dim

    def call(x: Tensor, table: KeysValues) -> tuple[Tensor, KeysValues]:
        """See `PrefixLayer.forward`."""
        batch, tokens, _ = x.shape
        result, (cosines, sines) = _copy(x), table
        keys = x.new_empty(batch, kv_heads, tokens, head_dim)
        values = torch.empty_like(keys)
        run(
            made,
            result.data_ptr(),
            batch,
            tokens,
            cosines.data_ptr(),
            sines.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
        )
        return result, (keys, values)

    return _Called(call, parts)


def gemma_layer(
    parts: Parts,
    layer: PrefixLayer | ExpertLayer,
    norms: tuple[cpp_layers.Norm, cpp_layers.Norm],
) -> cpp_layers.Layer:
    """A layer of the language model, or of the expert."""
    attention, mlp = layer.self_attn, layer.mlp
    return cpp_layers.Layer(
        *norms,
        _attention(parts, attention, attention.o_proj),
        _mlp(parts, (mlp.gate_proj, mlp.up_proj), mlp.down_proj),
        _outputs(mlp.down_proj),
        torch.get_num_threads(),
    )


def _copy(x: Tensor) -> Tensor:
    """The code writes its result over its input."""
    return x.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class _Called:
    """A call, and what it reads, which lives as long as it."""

    call: Call
    parts: Parts

    def __call__(self, *inputs: object) -> Tensor | tuple[Tensor, KeysValues]:
        return self.call(*inputs)
