"""Whether two objects touch, by numbers of geometries instead of their names.

Replaces `environments/base.py`: `MujocoEnv.check_contact` of robosuite 1.4.0 for two models, which
is what goals ask for in every step. robosuite looks up two names per contact and writes out the
list of an object's names each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ContactCheck:
    """Takes the place of an environment's `check_contact`."""

    def __init__(self, env: Any) -> None:
        """Look up no object yet.

        Args:
            env: A robosuite environment that keeps its model: it is never reset.
        """
        self._env = env  # not its data, which must not outlive `env.close`
        self._geoms: dict[int, NDArray[np.bool_]] = {}  # id of an object → which geometries are its

    def __call__(self, one: Any, other: Any) -> bool:
        """Whether a geometry of `one` touches one of `other`, both of robosuite's `MujocoModel`."""
        pairs = self._env.sim.data._data.contact.geom
        in_one, in_other = self._geoms_of(one)[pairs], self._geoms_of(other)[pairs]
        return bool((in_one & in_other[:, ::-1]).any())

    def _geoms_of(self, thing: Any) -> NDArray[np.bool_]:
        if id(thing) not in self._geoms:
            model = self._env.sim.model
            found = np.zeros(model.ngeom, dtype=bool)
            found[[model.geom_name2id(name) for name in thing.contact_geoms]] = True
            self._geoms[id(thing)] = found
        return self._geoms[id(thing)]
