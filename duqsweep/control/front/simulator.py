"""What played a sweep's episodes, as its trials' vitals say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from duqsweep.control.trials.reader import TrialView


def simulator_content(views: Sequence[TrialView]) -> dict[str, Any] | None:
    """The entry `simulator` of front.json: versions, assets, protocol and every renderer in use.

    Returns:
        None before the first trial was measured, and for a suite without episodes.
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
    return {
        "suite": view.trial.spec.protocol.suite,
        "protocol": view.trial.spec.protocol.protocol,
        **simulator.to_json(),
        "renderers": sorted(name for name in renderers if name is not None),
    }
