"""Calibration: statistics of each selected layer's inputs while the unquantized policy runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duqsweep.errors import EvaluationError
from duqsweep.quant.fold import input_transform
from duqsweep.quant.select import Bits
from duqsweep.spec import FULL_PRECISION, QuantSpec

SAMPLES = 128  # inputs kept per layer; DuQuant's official code uses 128 sequences
COLUMNS_AT_ONCE = 1024  # torch.quantile takes at most 2**24 numbers: 16,384 tokens per forward


@dataclass(frozen=True)
class LayerStats:
    """Input statistics of one layer, float32 on the CPU."""

    act_max: Tensor  # (in,) largest |x| of each channel
    percentile: (
        Tensor | None
    )  # (in,) of |x| after the layer's transform; None: scales are not static
    samples: Tensor | None = None  # (n, in) inputs; None: the rotation does not need them


def calibrate(
    module: nn.Module, bits: Mapping[str, Bits], quant: QuantSpec, run: Callable[[], None]
) -> dict[str, LayerStats]:
    """Statistics of the inputs of every layer in `bits`.

    Args:
        module: The unquantized, uncompiled policy; it is not changed.
        bits: The layers to observe, from `select_layers`.
        quant: The settings. Static scales need a second pass, because they are those of transformed
            channels, and the transform depends on the first pass.
        run: Runs the policy on the calibration observations, the same ones at every call.

    Returns:
        Layer name → its statistics. As in the prototype, a percentile is taken per forward, and
        the largest of all forwards is used.

    Raises:
        EvaluationError: A layer does not exist, got no input, or got NaN or infinity.
    """
    linears = {name: linear_named(module, name) for name in bits}
    if not linears:
        return {}
    maxima: dict[str, Tensor] = {}
    samples: dict[str, Tensor] = {}

    def observe(name: str, rows: Tensor) -> None:
        _keep_largest(maxima, name, rows.abs().amax(0))
        if quant.rotation == "greedy":
            samples[name] = _largest_rows([samples[name], rows] if name in samples else [rows])

    _observe(linears, run, observe)
    for name in linears:
        if name not in maxima:
            raise EvaluationError(f"layer {name!r} got no input during calibration")
        if not torch.isfinite(maxima[name]).all():
            raise EvaluationError(f"layer {name!r} got NaN or infinity during calibration")
    static = {
        name: linear
        for name, linear in linears.items()
        if quant.act_scale == "static" and bits[name][1] < FULL_PRECISION
    }
    percentiles = _percentiles(static, quant, run, maxima, samples) if static else {}
    return {
        name: LayerStats(maxima[name].cpu(), _on_cpu(percentiles, name), _on_cpu(samples, name))
        for name in linears
    }


def _percentiles(
    linears: Mapping[str, nn.Linear],
    quant: QuantSpec,
    run: Callable[[], None],
    maxima: Mapping[str, Tensor],
    samples: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The percentile of |x| of each transformed channel: the largest of all forwards."""
    transforms = {
        name: input_transform(linear.weight.detach(), quant, maxima[name], samples.get(name))
        for name, linear in linears.items()
    }
    found: dict[str, Tensor] = {}

    def observe(name: str, rows: Tensor) -> None:
        sizes = transforms[name].of_inputs(rows).abs()
        parts = torch.split(sizes, COLUMNS_AT_ONCE, dim=1)
        share = quant.act_percentile / 100.0
        _keep_largest(
            found, name, torch.cat([torch.quantile(part, share, dim=0) for part in parts]).float()
        )

    _observe(linears, run, observe)
    return found


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


def _observe(
    linears: Mapping[str, nn.Linear],
    run: Callable[[], None],
    observe: Callable[[str, Tensor], None],
) -> None:
    """Call `observe` with the name and inputs, (n, in) float32, of every layer that `run` calls."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            observe(name, inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float())

        return record

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in linears.items()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()


def _keep_largest(largest: dict[str, Tensor], name: str, values: Tensor) -> None:
    if name not in largest:
        largest[name] = values
        return
    torch.maximum(largest[name], values, out=largest[name])  # in place: a graph may repeat it


def _largest_rows(parts: list[Tensor]) -> Tensor:
    """The `SAMPLES` rows with the largest |x|: the outliers that a rotation has to spread."""
    rows = torch.cat(parts)
    amax = rows.abs().amax(1)
    return rows[amax.topk(min(SAMPLES, len(rows))).indices]


def _on_cpu(tensors: Mapping[str, Tensor], name: str) -> Tensor | None:
    return tensors[name].cpu() if name in tensors else None
