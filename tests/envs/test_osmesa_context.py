"""Simulators that Mesa draws share one OpenGL context, and no picture shows it."""

from __future__ import annotations

import numpy as np
import pytest

from duqsweep.envs.libero import open_environment
from duqsweep.spec import LedgerEntry, SuiteSpec


def test_pictures_are_those_of_contexts_of_their_own(suite: SuiteSpec):
    """Also after one simulator was closed, and was built anew."""
    shared = pictures_of_two(suite)
    from robosuite.renderers.context.osmesa_context import OSMesaGLContext  # loaded by now
    from robosuite.utils import binding_utils

    made: list[OSMesaGLContext] = []

    def own(**given: int) -> OSMesaGLContext:
        made.append(OSMesaGLContext(**given))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("duqsweep.envs.osmesa_context._context", own)
        patch.setattr(binding_utils, "GLContext", binding_utils.GLContext)  # is put back
        alone = pictures_of_two(suite)
    assert len(made) == 3
    assert len(shared) == len(alone)
    assert all(map(np.array_equal, shared, alone))
    assert not np.array_equal(shared[0], shared[2])


def pictures_of_two(suite: SuiteSpec) -> list[np.ndarray]:
    """Of two simulators in turn, then of the one that is left, then of both."""
    pictures: list[np.ndarray] = []
    environments = [open_environment(suite) for _ in range(2)]

    def look(number: int) -> None:
        entry = LedgerEntry(i=0, suite="duq_mini", task=2 + number, init_state=0, seed=7)
        if environments[number]._current is None:
            environments[number].reset(entry)
        pictures.extend(environments[number].observe().images.values())

    for number in (0, 1, 0):
        look(number)
    environments[0].close()
    for number in (1, 0, 1):
        look(number)
    for environment in environments:
        environment.close()
    return pictures
