"""What played a sweep's episodes, as its trials' vitals say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from duqsweep.codec import FLAT
from duqsweep.control.trials.reader import TrialView
from duqsweep.result import SimulatorInfo


@dataclass(frozen=True)
class SweepSimulator:
    """The entry `simulator` of front.json."""

    suite: str
    protocol: str  # whose evaluation it follows
    info: SimulatorInfo = field(metadata=FLAT)
    renderers: tuple[str, ...]  # every one in use


def sweep_simulator(views: Sequence[TrialView]) -> SweepSimulator | None:
    """Versions, assets, protocol and renderers of a sweep.

    Returns:
        None before the first trial was benchmarked, and for a suite without episodes.
    """
    measured = [
        (view, view.vitals.simulator)
        for view in views
        if view.vitals is not None and view.vitals.simulator is not None
    ]
    if not measured:
        return None
    view, simulator = measured[0]  # all trials of a sweep share it: worker.simulator
    renderers = {view.vitals.renderer for view, _ in measured if view.vitals}
    suite = view.trial.spec.suite
    known = tuple(sorted(name for name in renderers if name is not None))
    return SweepSimulator(suite.name, suite.protocol, simulator, known)
