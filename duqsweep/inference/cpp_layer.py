"""A layer in float32 whose call is one function of `kernels/cpp/layers.cpp`.

Torch's operators take several microseconds each however small their tensors are, and torch's
compiler a second and more per kind of layer. These functions are compiled once per machine.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

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
    if not _is_known(layer):
        return None
    if isinstance(layer, SiglipLayer):
        return _vision(layer)
    if isinstance(layer, PrefixLayer):
        return _prefix(layer)
    return _expert(layer) if isinstance(layer, ExpertLayer) else None


def _is_known(layer: nn.Module) -> bool:
    tensors = [*layer.parameters(), *layer.buffers()]
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors):
        return False
    linears = [part for part in layer.modules() if isinstance(part, (nn.Linear, QuantizedLinear))]
    found = [weights_of(linear) for linear in linears]
    return all(
        weights is not None and weights.numerics in COMPUTED and weights.in_features <= WIDEST
        for weights in found
    )


class _Tensors:
    """Pointers for the compiled code, and what they point to."""

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
        parts: list[Tensor] = []
        made = [cpp_layers.product(weights, parts) for weights in single if weights is not None]
        array = (cpp_layers.Product * len(made))(*made)
        self._kept += [parts, array]
        return array, len(made)

    def layer(
        self,
        norms: tuple[cpp_layers.Norm, cpp_layers.Norm],
        attention: cpp_layers.Attention,
        mlp: cpp_layers.Mlp,
        width: int,
    ) -> cpp_layers.Layer:
        """The whole layer."""
        return cpp_layers.Layer(*norms, attention, mlp, width, torch.get_num_threads())


def _attention(
    tensors: _Tensors, attention: GemmaAttention | SiglipAttention, output: nn.Module
) -> cpp_layers.Attention:
    inputs, count = tensors.products((attention.q_proj, attention.k_proj, attention.v_proj))
    outputs, _ = tensors.products((output,))
    if isinstance(attention, GemmaAttention):
        head_dim, kv_heads = attention.head_dim, attention.kv_heads
        heads = _outputs(attention.q_proj) // head_dim
    else:
        heads = kv_heads = attention.heads
        head_dim = _outputs(attention.q_proj) // heads
    return cpp_layers.Attention(inputs, outputs, count, heads, kv_heads, head_dim)


def _mlp(tensors: _Tensors, inputs: Sequence[nn.Module], output: nn.Module) -> cpp_layers.Mlp:
    wide, count = tensors.products(inputs)
    narrow, _ = tensors.products((output,))
    return cpp_layers.Mlp(wide, narrow, count)


def _outputs(linear: nn.Module) -> int:
    weights = weights_of(linear)
    assert isinstance(weights, ProjectionWeights)
    return weights.out_features


def _vision(layer: SiglipLayer) -> Call:
    tensors = _Tensors()
    first, second = (
        cpp_layers.Norm(*(tensors.pointer(t.detach()) for t in (norm.weight, norm.bias)))
        for norm in (layer.layer_norm1, layer.layer_norm2)
    )
    made = tensors.layer(
        (first, second),
        _attention(tensors, layer.self_attn, layer.self_attn.out_proj),
        _mlp(tensors, (layer.mlp.fc1,), layer.mlp.fc2),
        len(layer.layer_norm1.weight),
    )
    run = cpp_layers.library().vision_layer

    def call(x: Tensor) -> Tensor:
        """See `SiglipLayer.forward`."""
        result = _copy(x)
        run(made, result.data_ptr(), *x.shape[:2])
        return result

    return _keeping(call, tensors)


def _prefix(layer: PrefixLayer) -> Call:
    tensors = _Tensors()
    norms = tuple(
        cpp_layers.Norm(tensors.pointer(1.0 + norm.weight.detach()), None)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    )
    made = _gemma(tensors, layer, norms)
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

    return _keeping(call, tensors)


def _expert(layer: ExpertLayer) -> Call:
    tensors = _Tensors()
    made = _gemma(tensors, layer, (cpp_layers.Norm(), cpp_layers.Norm()))
    run = cpp_layers.library().expert_layer

    def call(
        x: Tensor, table: KeysValues, prefix: KeysValues, modulation: tuple[Tensor, Tensor]
    ) -> Tensor:
        """See `ExpertLayer.forward`."""
        batch, tokens, _ = x.shape
        result, (cosines, sines) = _copy(x), table
        keys, values = prefix[0].contiguous(), prefix[1].contiguous()
        first, second = modulation[0].contiguous(), modulation[1].contiguous()
        run(
            made,
            result.data_ptr(),
            batch,
            tokens,
            cosines.data_ptr(),
            sines.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            keys.shape[2],
            first.data_ptr(),
            second.data_ptr(),
            len(first),
        )
        return result

    return _keeping(call, tensors)


def _gemma(
    tensors: _Tensors,
    layer: PrefixLayer | ExpertLayer,
    norms: tuple[cpp_layers.Norm, ...],
) -> cpp_layers.Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return tensors.layer(
        (norms[0], norms[1]),
        _attention(tensors, attention, attention.o_proj),
        _mlp(tensors, (mlp.gate_proj, mlp.up_proj), mlp.down_proj),
        _outputs(mlp.down_proj),
    )


def _copy(x: Tensor) -> Tensor:
    """The code writes its result over its input."""
    return x.clone(memory_format=torch.contiguous_format)


def _keeping(call: Call, tensors: _Tensors) -> Call:
    """The call; what it points to lives as long as it."""

    def kept(*inputs: object) -> Tensor | tuple[Tensor, KeysValues]:
        assert tensors
        return call(*inputs)

    return kept
