"""How many simulators a worker runs at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig


def simulators_per_worker(config: LauncherConfig, workers: int) -> int:
    """`launcher.simulators`, or one per core of the worker but for the policy's; at least one.

    Args:
        config: The launcher.
        workers: How many share this machine's cores; a SLURM job has its own.
    """
    if config.simulators:
        return config.simulators
    shared = len(os.sched_getaffinity(0)) // workers
    return max(1, (config.cpus_per_task if config.name == "slurm" else shared) - 1)
