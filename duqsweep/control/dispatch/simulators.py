"""How many simulators a worker runs at once, and whether more would help."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from duqsweep.result import Throughput

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

COUNTED_S = 30.0  # a shorter time says little
IDLE_POLICY = 0.5  # share of the time; a policy that computes less waits for simulators


def simulators_per_worker(config: LauncherConfig, workers: int) -> int:
    """`launcher.simulators`, or one per core of the worker but for the policy's; at least one.

    Args:
        config: The launcher.
        workers: How many share this machine's cores; a SLURM job has its own.
    """
    return config.simulators or max(1, _cores(config, workers) - 1)


def simulator_hint(config: LauncherConfig, workers: int, counted: Throughput) -> str | None:
    """What to set so that a worker plays faster; None where its simulators are not the limit.

    Also None where this machine's cores are all in use.
    """
    if counted.wall_s < COUNTED_S or counted.policy_busy >= IDLE_POLICY:
        return None
    cores, simulators = _cores(config, workers), counted.simulators
    found = f"simulators are the limit: the policy computes {counted.policy_busy:.0%} of the time"
    if simulators + 1 < cores:
        return f"{found}; launcher.simulators={cores - 1} uses all {cores} cores of a job"
    if config.name != "slurm":
        return None
    wanted = min(4 * simulators, int(simulators / max(counted.policy_busy, 0.01))) + 1
    more = f"launcher.cpus_per_task={wanted} lets a job run {wanted - 1} instead of {simulators}"
    return f"{found}; {more}"


def _cores(config: LauncherConfig, workers: int) -> int:
    if config.name == "slurm":
        return config.cpus_per_task
    return len(os.sched_getaffinity(0)) // workers
