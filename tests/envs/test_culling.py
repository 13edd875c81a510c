"""What a camera cannot see is not drawn, and no pixel changes; random scenes, and our suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from duqsweep.envs.culling import HIDDEN, Culling
from duqsweep.envs.libero import open_environment
from duqsweep.envs.mini.suite import ASSETS
from duqsweep.envs.rendering import OSMESA
from duqsweep.envs.setup import prepare_libero
from duqsweep.envs.simulator import CAMERAS, Simulator
from duqsweep.spec import LedgerEntry, SuiteSpec

SCENE = """
<mujoco>
  <asset>
    <material name="dull"/>
    <material name="mirror" reflectance="0.7"/>
    <mesh name="wedge" vertex="0 0 0  .3 0 0  0 .2 0  0 0 .4  .3 .2 .4"/>
  </asset>
  <worldbody>
    <light pos="0 0 4" castshadow="false"/>
    <geom type="plane" size="0 0 1" pos="0 0 -1" material="{floor}"/>
    {geoms}
    {cameras}
  </worldbody>
</mujoco>
"""
KINDS = ("sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh")


def random_scene(seed: int) -> str:
    """Forty geoms around cameras that look everywhere; floor and boxes may mirror."""
    rng = np.random.default_rng(seed)

    def numbers(count: int, low: float, high: float) -> str:
        return " ".join(f"{value:.3f}" for value in rng.uniform(low, high, count))

    geoms, cameras = [], []
    for number in range(40):
        kind = KINDS[number % len(KINDS)]
        shape = 'mesh="wedge"' if kind == "mesh" else f'size="{numbers(3, 0.02, 0.3)}"'
        material = "mirror" if kind == "box" and rng.random() < 0.4 else "dull"
        geoms.append(
            f'<geom type="{kind}" {shape} material="{material}" pos="{numbers(3, -1, 1)}" '
            f'euler="{numbers(3, -180, 180)}" rgba="{numbers(3, 0, 1)} {rng.choice([1, 1, 0.5])}"/>'
        )
    for number in range(6):
        cameras.append(
            f'<camera name="{number}" pos="{numbers(3, -1, 1)}" euler="{numbers(3, -180, 180)}" '
            f'fovy="{rng.uniform(20, 100):.1f}"/>'
        )
    floor = rng.choice(["mirror", "dull"])
    return SCENE.format(floor=floor, geoms="\n".join(geoms), cameras="\n".join(cameras))


@pytest.mark.parametrize("seed", range(8))
def test_no_pixel_of_a_random_scene_changes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_libero(OSMESA, ASSETS)
    import mujoco
    from mujoco.osmesa import GLContext

    # Another test may have imported MuJoCo earlier, when nothing said what draws.
    monkeypatch.setattr("mujoco.gl_context.GLContext", GLContext)

    model = mujoco.MjModel.from_xml_string(random_scene(seed))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    culling, hidden = Culling(model), 0
    with mujoco.Renderer(model, 64, 64) as renderer:
        for camera in range(model.ncam):
            renderer.update_scene(data, camera)
            whole = renderer.render().copy()
            with culling.only_seen(data, camera):
                hidden += int((model.geom_group == HIDDEN).sum())
                renderer.update_scene(data, camera)
                assert np.array_equal(renderer.render(), whole)
            assert not model.geom_group.any()
    assert hidden > model.ncam * 5  # else nothing was tested


def pictures(environment: Any, whole: bool) -> list[np.ndarray]:
    simulator: Simulator = environment._current
    sim = simulator.env.sim
    if not whole:
        return [simulator.render(camera) for camera in CAMERAS.values()]
    simulator._use_own_context()
    side = simulator._image_px
    return [
        sim.render(camera_name=camera, width=side, height=side)[::-1] for camera in CAMERAS.values()
    ]


def compare(suite: SuiteSpec, tasks: list[int], steps: int) -> None:
    environment, rng = open_environment(suite), np.random.default_rng(0)
    for task in tasks:
        environment.reset(LedgerEntry(0, suite.name, task, 0, suite.seed))
        for _ in range(steps):
            environment.step(rng.uniform(-1, 1, 7))
            pairs = zip(pictures(environment, False), pictures(environment, True), strict=True)
            assert all(np.array_equal(*pair) for pair in pairs)
    environment.close()


def test_no_pixel_of_the_shipped_suite_changes(suite: SuiteSpec) -> None:
    compare(suite, [0], 3)
