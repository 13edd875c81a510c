"""What the inputs of each selected layer look like while the unquantized policy runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.quant.fold import input_transform
from duqsweep.quant.select import Bits
from duqsweep.spec import FULL_PRECISION, QuantSpec

COLUMNS_AT_ONCE = 1024  # torch.quantile takes at most 2**24 numbers: here 16,384 tokens a forward


@dataclass(frozen=True)
class LayerStats:
    """Input statistics of one layer, float32 on the CPU."""

    act_max: Tensor  # (in,) largest |x| of each channel
    percentile: Tensor | None  # (in,) of |x| after the layer's transform; None: no static scales


def calibrate(
    module: nn.Module, bits: Mapping[str, Bits], quant: QuantSpec, run: Callable[[], None]
) -> dict[str, LayerStats]:
    """Statistics of the inputs of every layer in `bits`.

    Args:
        module: The unquantized, uncompiled policy; it is left as it was.
        bits: Layers to watch, from `select_layers`.
        quant: The settings. Static scales need a second pass, because they belong to channels whose
            order and rotation the first pass decides.
        run: Makes forwards on the calibration observations, the same ones each time it is called.

    Returns:
        Layer name → its statistics. As in the prototype, a percentile is taken in each forward and
        the largest of all forwards counts.

    Raises:
        EvaluationError: A layer does not exist, saw no input, or saw NaN or infinity.
    """
    linears = {name: linear_named(module, name) for name in bits}
    if not linears:
        return {}
    maxima = _watch(linears, run, lambda _, rows: rows.abs().amax(0))
    static = [
        name for name in linears if quant.act_scale == "static" and bits[name][1] < FULL_PRECISION
    ]
    percentiles: dict[str, Tensor] = {}
    if static:
        transforms = {
            name: input_transform(linears[name].weight.detach(), quant, maxima[name])
            for name in static
        }

        def percentile(name: str, rows: Tensor) -> Tensor:
            sizes = transforms[name].of_inputs(rows).abs()
            share = quant.act_percentile / 100.0
            parts = torch.split(sizes, COLUMNS_AT_ONCE, dim=1)
            return torch.cat([torch.quantile(part, share, dim=0) for part in parts])

        percentiles = _watch({name: linears[name] for name in static}, run, percentile)
    return {
        name: LayerStats(
            maxima[name].cpu(), percentiles[name].float().cpu() if name in percentiles else None
        )
        for name in linears
    }


def linear_named(module: nn.Module, name: str) -> nn.Linear:
    """The linear layer with this dotted name.

    Raises:
        EvaluationError: There is no such module, or it is another kind of module.
    """
    try:
        layer = module.get_submodule(name)
    except AttributeError as error:
        raise EvaluationError(f"the policy has no layer {name!r}: {error}") from error
    if not isinstance(layer, nn.Linear):
        raise EvaluationError(f"layer {name!r} is a {type(layer).__name__}, not a Linear")
    return layer


def _watch(
    linears: Mapping[str, nn.Linear],
    run: Callable[[], None],
    measure: Callable[[str, Tensor], Tensor],
) -> dict[str, Tensor]:
    """Largest `measure(name, rows)` of each layer's inputs over all forwards of `run`."""
    largest: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def observe(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            value = measure(name, rows)
            largest[name] = torch.maximum(largest[name], value) if name in largest else value

        return observe

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in linears.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    for name in linears:
        if name not in largest:
            raise EvaluationError(f"layer {name!r} saw no input during calibration")
        if not torch.isfinite(largest[name]).all():
            raise EvaluationError(f"layer {name!r} saw NaN or infinity during calibration")
    return largest
