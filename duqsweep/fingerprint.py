"""Identities: a hash of plain data, and of what a trial really does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from duqsweep.codec import encode
from duqsweep.spec import FULL_PRECISION, QuantSpec, TrialSpec


def digest(data: Any) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON: the identity of `data`."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(spec: TrialSpec, bits: dict[str, tuple[int, int]]) -> str:
    """Hash of the effective spec: two specs that do the same thing share it.

    Args:
        spec: The trial.
        bits: Layer name → (weight bits, activation bits) as resolved from the spec's rules;
            layers left at 16/16 may be present or absent.
    """
    quantized = {name: list(pair) for name, pair in bits.items() if min(pair) < FULL_PRECISION}
    method = _effective_method(spec.quant) if quantized else {}
    data = encode(spec)
    data["quant"] = {"bits": quantized, "method": method}
    return digest(data)


def _effective_method(quant: QuantSpec) -> dict[str, Any]:
    """The knobs that change what a quantized layer computes; the others at one fixed value."""
    method = encode(quant)
    del method["rules"], method["layer_bits"]
    rotated, grouped = quant.rotation != "none", quant.weight_group_size > 0
    if not rotated and not grouped:
        method["permutation"] = "none"  # an order alone changes no sum
    if not rotated and (not grouped or quant.permutation != "zigzag"):
        del method["block_size"]
    if quant.act_scale != "static":
        del method["act_percentile"]
    return method
