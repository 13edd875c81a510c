"""The simulator that a sweep began with, which everything that resumes the sweep must share."""

from __future__ import annotations

from pathlib import Path

from duqsweep import files
from duqsweep.envs.simulator_info import describe_simulator
from duqsweep.errors import ConfigError, InfrastructureError
from duqsweep.result import SimulatorInfo
from duqsweep.spec import SuiteSpec


def check_simulator(sweep_dir: Path, suite: SuiteSpec) -> SimulatorInfo | None:
    """The simulator of this machine; writes nothing.

    Args:
        sweep_dir: A sweep's folder, new or begun.
        suite: Suite and assets.

    Returns:
        None for a suite without episodes.

    Raises:
        ConfigError: This machine cannot play the suite, or the sweep began with another simulator.
    """
    found = describe_simulator(suite)
    began = read_simulator(sweep_dir)
    if began is not None and found != began:
        raise ConfigError(
            f"the sweep in {sweep_dir} began with {_difference(began, found)}; episodes under "
            "different simulators cannot be compared: restore it, or start a new sweep with name=…"
        )
    return found


def check_node(sweep_dir: Path, suite: SuiteSpec) -> SimulatorInfo | None:
    """`check_simulator` for a worker: what it finds wrong is the node's fault.

    Raises:
        InfrastructureError: See `check_simulator`.
    """
    try:
        return check_simulator(sweep_dir, suite)
    except ConfigError as error:
        raise InfrastructureError(f"this node cannot play {suite.name}: {error}") from error


def write_simulator(sweep_dir: Path, simulator: SimulatorInfo | None) -> None:
    """Record the simulator of a new sweep; that of one begun before stays."""
    path = sweep_dir / files.SIMULATOR_JSON
    if simulator is not None and not path.exists():
        files.write_json(path, simulator.to_json())


def read_simulator(sweep_dir: Path) -> SimulatorInfo | None:
    """What the sweep in a folder began with; None before it began."""
    path = sweep_dir / files.SIMULATOR_JSON
    return files.read_record(SimulatorInfo, path) if path.exists() else None


def _difference(began: SimulatorInfo, found: SimulatorInfo | None) -> str:
    now = found.to_json() if found else {}
    changed = [
        f"{name} {value} and this machine has {now.get(name, 'none')}"
        for name, value in began.to_json().items()
        if now.get(name) != value
    ]
    return ", ".join(changed)
