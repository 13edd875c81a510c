"""Goal predicates that LIBERO lacks; they are called like LIBERO's, with object states."""

from __future__ import annotations

from typing import Any

import numpy as np
from libero.libero.envs.predicates import VALIDATE_PREDICATE_FN_DICT

RELEASED_M = 0.05  # at this distance, an unstable stack has had time to fall
UPRIGHT_COS = 0.94  # 20 degrees


class OnEither:
    """The object is on any of several regions."""

    def __call__(self, thing: Any, *regions: Any) -> bool:
        """True if LIBERO's `On` holds for any region."""
        return any(region.check_ontop(thing) for region in regions)


class Released:
    """The gripper does not touch the object and is not close to it."""

    def __call__(self, thing: Any) -> bool:
        """True if the grip site is RELEASED_M from the object and no finger touches it."""
        env = thing.env
        robot = env.robots[0]
        grip = env.sim.data.site_xpos[robot.eef_site_id]
        apart = np.linalg.norm(grip - thing.get_geom_state()["pos"]) > RELEASED_M
        held = env.check_contact(robot.gripper, env.get_object(thing.object_name))
        return bool(apart and not held)


class Upright:
    """The object stands upright."""

    def __call__(self, thing: Any) -> bool:
        """True if the object's z axis is within 20 degrees of the vertical."""
        _, x, y, _ = thing.get_geom_state()["quat"]  # wxyz
        return bool(1.0 - 2.0 * (x * x + y * y) > UPRIGHT_COS)


# LIBERO's own `update_predicate_fn_dict` evaluates a string in the wrong module.
VALIDATE_PREDICATE_FN_DICT.update(
    {"oneither": OnEither(), "released": Released(), "upright": Upright()}
)
