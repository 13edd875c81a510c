"""The quantized linear layers: for each kernel, a builder from a layer's parts to its module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from duqsweep.quant.linear import LinearParts
from duqsweep.quant.linears import fake, fp8, integer, loop

BUILDERS: Mapping[str, Callable[[LinearParts], nn.Module]] = {
    "fake": fake.build,
    "loop": loop.build,
    "int8": integer.build_int8,
    "w4a8": integer.build_w4a8,
    "fp8": fp8.build,
}
