"""The problem class of `duq_mini`: LIBERO's table, an own arena, rendering fast enough on a CPU."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import libero.libero.envs.problems  # noqa: F401  (fills TASK_MAPPING)
from libero.libero.envs.bddl_base_domain import TASK_MAPPING, register_problem
from libero.libero.envs.predicates import eval_predicate_fn
from libero.libero.envs.regions import REGION_SAMPLERS, TableRegionSampler

import duqsweep.envs.mini.objects
import duqsweep.envs.mini.predicates  # noqa: F401
from duqsweep.envs.mini.suite import ASSETS

# `register_problem` returns None, so the class cannot be imported from its module.
_Tabletop: Any = TASK_MAPPING["libero_tabletop_manipulation"]

COLLISION_GROUP, VISUAL_GROUP, HIDDEN_GROUP = 0, 1, 4
POINT_M = "0.001"
ROBOT_PREFIXES = ("robot0", "gripper0", "mount0")  # of the names of its geoms
ROBOT_RGBA = (0.85, 0.85, 0.87, 1.0)
GRIPPER_RGBA = (0.25, 0.25, 0.28, 1.0)


class Duq_Mini_Tabletop(_Tabletop):  # type: ignore[misc]  # noqa: N801 (LIBERO's naming)
    """A table with objects made of primitives."""

    def __init__(self, bddl_file_name: str, *args: Any, **kwargs: Any) -> None:
        kwargs["scene_xml"] = str(
            ASSETS / "arena.xml"
        )  # absolute, so that LIBERO's asset folder is ignored
        super().__init__(bddl_file_name, *args, **kwargs)

    def _setup_camera(self, mujoco_arena: Any) -> None:
        mujoco_arena.set_camera(
            camera_name="agentview",
            pos=[0.52, 0.0, 1.62],
            quat=[0.6533, 0.2706, 0.2706, 0.6533],
            camera_attribs={"fovy": "36"},  # the workspace fills the picture
        )

    def _eval_predicate(self, state: list[str]) -> bool:
        name, *objects = state  # LIBERO's version takes at most two objects
        return bool(eval_predicate_fn(name, *(self.object_states_dict[obj] for obj in objects)))

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        super()._initialize_sim(without_fine_meshes(xml_string or self.model.get_xml()))
        model = self.sim.model._model
        model.vis.quality.offsamples = (
            0  # no multi-sampling; must be set before the GL context is created
        )
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = max([*self.camera_widths, 64])
        model.vis.global_.offheight = max([*self.camera_heights, 64])
        self._draw_robot_coarsely(model)

    def _draw_robot_coarsely(self, model: Any) -> None:
        """Show the robot's collision meshes, not 180,000 triangles; physics ignores groups."""
        for geom in range(model.ngeom):
            name = self.sim.model.geom_id2name(geom) or ""
            if not name.startswith(ROBOT_PREFIXES):
                continue
            if model.geom_group[geom] == VISUAL_GROUP:
                model.geom_group[geom] = HIDDEN_GROUP
            elif model.geom_group[geom] == COLLISION_GROUP:
                model.geom_group[geom] = VISUAL_GROUP
                model.geom_matid[geom] = -1
                model.geom_rgba[geom] = ROBOT_RGBA if name.startswith("robot0") else GRIPPER_RGBA


def without_fine_meshes(xml: str) -> str:
    """A model whose robot has points in place of the meshes that are hidden.

    They are seen nowhere and touch nothing, and bodies have their masses from elsewhere. Yet MuJoCo
    would read 180,000 triangles for each model and hand them to OpenGL: 0.3 of 0.35 s.
    """
    root = ElementTree.fromstring(xml)
    for geom in root.iter("geom"):
        is_robot = geom.get("name", "").startswith(ROBOT_PREFIXES)
        if is_robot and geom.get("group") == str(VISUAL_GROUP) and geom.get("type") == "mesh":
            geom.attrib.pop("mesh")
            geom.set("type", "sphere")
            geom.set("size", POINT_M)
    used = {geom.get("mesh") for geom in root.iter("geom")}
    for assets in root.iter("asset"):
        for mesh in assets.findall("mesh"):
            if mesh.get("name") not in used:
                assets.remove(mesh)
    return ElementTree.tostring(root, encoding="unicode")


register_problem(Duq_Mini_Tabletop)
# LIBERO's own `update_region_samplers` evaluates a name and fails.
REGION_SAMPLERS["duq_mini_tabletop"] = {"table": TableRegionSampler}
