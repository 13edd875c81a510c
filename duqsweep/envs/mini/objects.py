"""Objects made of primitive shapes, registered under the names in the BDDL files."""

from __future__ import annotations

from functools import partial

from libero.libero.envs.base_object import OBJECTS_DICT
from robosuite.models.objects import MujocoXMLObject

from duqsweep.envs.mini.suite import ASSETS

YAW_RAD = {
    "red_cube": 0.3,
    "blue_cube": 0.3,
    "green_block": 0.3,
}  # range ± at placement; other objects: 0


class PrimitiveObject(MujocoXMLObject):  # type: ignore[misc]
    """A free body read from `assets/<category>.xml`, with the attributes that LIBERO expects."""

    def __init__(self, name: str, category: str) -> None:
        super().__init__(
            str(ASSETS / f"{category}.xml"),
            name=name,
            joints=[{"type": "free", "damping": "0.0005"}],
            obj_type="all",
            duplicate_collision_geoms=True,  # cameras see these copies
        )
        yaw = YAW_RAD.get(category, 0.0)
        self.category_name = category
        self.rotation = (-yaw, yaw)
        self.rotation_axis = "z"
        self.object_properties: dict[str, dict[str, bool]] = {"vis_site_names": {}}


# LIBERO has one registry for all suites of a process: these names must differ from LIBERO's.
OBJECTS_DICT.update(
    {
        path.stem: partial(PrimitiveObject, category=path.stem)
        for path in ASSETS.glob("*.xml")
        if path.stem != "arena"
    }
)
