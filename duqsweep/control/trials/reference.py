"""The one call time that all speed-ups of a sweep are turned back into seconds with.

Every trial times the unquantized policy on its own node and reports a ratio. The first such time
that the controller sees becomes the sweep's own, so that trials of unlike nodes share one axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duqsweep import files
from duqsweep.codec import encode
from duqsweep.control.trials.reader import TrialView
from duqsweep.errors import EvaluationError, SpecError


@dataclass(frozen=True)
class Reference:
    """The unquantized, eager policy as one node ran it: the content of `reference.json`."""

    call_ms: float  # median latency of a policy call, batch 1
    trial: int  # whose vitals it was taken from
    hardware: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.call_ms > 0:
            raise SpecError(f"call_ms of the reference must be positive, got {self.call_ms}")

    def episode_time_s(self, nominal_calls: int, speedup: float = 1.0) -> float:
        """Policy seconds of an episode of nominal length at a given speed-up."""
        return self.call_ms / 1000 / speedup * nominal_calls


def sweep_reference(sweep_dir: Path) -> Reference | None:
    """The sweep's reference; None before the first vitals."""
    path = sweep_dir / files.REFERENCE_JSON
    return files.read_record(Reference, path) if path.exists() else None


def ensure_reference(sweep_dir: Path, views: Sequence[TrialView]) -> Reference | None:
    """The sweep's reference, written once: from the vitals among `views` that came first."""
    known = sweep_reference(sweep_dir)
    reference = first_reference(views) if known is None else known
    if reference is not None and known is None:
        files.write_json(sweep_dir / files.REFERENCE_JSON, encode(reference))
    return reference


def readable_reference(sweep_dir: Path, views: Sequence[TrialView]) -> Reference | None:
    """The sweep's reference; from the vitals that came first where `reference.json` is damaged."""
    try:
        return sweep_reference(sweep_dir)
    except (EvaluationError, SpecError):
        return first_reference(views)


def first_reference(views: Sequence[TrialView]) -> Reference | None:
    """The reference of the vitals that came first; None where there are none."""
    measured = [(view.measured_ms or 0, view.number, view.vitals) for view in views if view.vitals]
    if not measured:
        return None
    _, number, vitals = min(measured, key=lambda item: item[:2])
    return Reference(vitals.reference_call_ms, number, vitals.hardware)
