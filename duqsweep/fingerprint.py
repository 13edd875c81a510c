"""Identities: a hash of plain data, and of what a trial really does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from duqsweep.codec import encode
from duqsweep.setting import declared_settings
from duqsweep.spec import FULL_PRECISION, TrialSpec


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
    data = {section: _effective(getattr(spec, section)) for section in encode(spec)}
    data["quant"] = {"bits": quantized, "method": data["quant"] if quantized else {}}
    return digest(data)


def _effective(record: Any) -> dict[str, Any]:
    """The settings of a record that have an effect beside its others: name → value."""
    values = encode(record)
    declared = declared_settings(type(record))
    return {name: values[name] for name in declared if declared[name].is_used(record)}
