"""What played a sweep's episodes, and what that means for its success rates, in words."""

from __future__ import annotations

from duqsweep.control.front.simulator import SweepSimulator

_ASSETS = {
    "original": "LIBERO's own assets",
    "shipped": "the package's own assets",
    "stand-ins": "stand-ins for LIBERO's assets",
}


def simulator_line(simulator: SweepSimulator | None) -> str | None:
    """Versions, assets, renderer and protocol in one line; None for a sweep without episodes.

    Args:
        simulator: The entry `simulator` of front.json.
    """
    if simulator is None:
        return None
    info = simulator.info
    drawn = f", drawn by {' and '.join(simulator.renderers)}" if simulator.renderers else ""
    whose = simulator.protocol
    protocol = "" if whose == "own" else f", as {whose} evaluates"
    return (
        f"simulator: {simulator.suite} in MuJoCo {info.mujoco} and robosuite {info.robosuite}, "
        f"{_ASSETS[info.assets]}{drawn}{protocol}"
    )


def warnings(simulator: SweepSimulator | None) -> list[str]:
    """Why success rates must not be compared: with published ones, or among the sweep's trials.

    Args:
        simulator: The entry `simulator` of front.json.
    """
    if simulator is None:
        return []
    found = []
    info = simulator.info
    if info.stand_ins:
        found.append(
            f"not LIBERO's pictures: {info.stand_ins} of the {info.asset_files} "
            f"asset files of {simulator.suite} are stand-ins; do not compare these success "
            "rates with published ones (pip install 'duqsweep[libero]' brings LIBERO's own)"
        )
    if len(simulator.renderers) > 1:
        found.append(
            f"trials saw pictures of different renderers ({', '.join(simulator.renderers)}), "
            "which differ slightly; set suite.renderer to one of them to compare closely"
        )
    return found
