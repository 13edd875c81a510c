"""SmoothQuant's factors, which move outliers of the activations into the weight."""

from __future__ import annotations

from torch import Tensor


def smoothing_factors(act_max: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Factor of each input channel: inputs are divided by it, weight columns multiplied by it.

    Args:
        act_max: (in,) largest |x| of each channel.
        weight: (out, in).
        alpha: Share of the outliers that is moved into the weight, 0 to 1.

    Returns:
        (in,) float64, positive: act_max^alpha / weight_max^(1 - alpha). The factor is 1 for
        channels whose inputs or weights are all zero.
        Source: SmoothQuant, arXiv:2211.10438, equation 4.
    """
    inputs = act_max.double()
    columns = weight.abs().amax(0).double()
    factors = inputs**alpha / columns ** (1.0 - alpha)
    return factors.where((inputs > 0) & (columns > 0), inputs.new_ones(()))
