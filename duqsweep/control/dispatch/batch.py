"""The scripts of batch jobs for SLURM: what they ask for, and the lines that they run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from submitit.slurm.slurm import _make_sbatch_string

from duqsweep.control.dispatch.launch import JOB_FOLDER, SIGNAL_S, setup_lines
from duqsweep.errors import ConfigError
from duqsweep.files import CONTROLLER_DIR, WORKERS_DIR
from duqsweep.masking import masked

if TYPE_CHECKING:
    from duqsweep.control.config.schema import LauncherConfig

LOG = "log.txt"  # of a controller's job
OWN_FLAGS = ("array", "error", "job-name", "no-requeue", "output", "requeue", "signal", "time")
# Options that ask for GPUs in a way of their own; SLURM refuses most of them beside gpus-per-node.
GPU_FLAGS = ("gpus", "gpus-per-socket", "gpus-per-task")

Flags = Mapping[str, str | int | float | bool]


def sbatch_flags(config: LauncherConfig) -> Flags:
    """The configuration as long options of sbatch, without what every worker has of its own."""
    extra = _extra_flags("launcher", config.additional_parameters)
    wished = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "cpus-per-task": config.cpus_per_task,
        "gres": config.gres,
        "gpus-per-node": config.gpus_per_node or None,
        "exclusive": config.exclusive or None,
        "mem": _memory(config.mem_gb),
    }
    if _names_gpus({**wished, **extra}):
        wished["gpus-per-node"] = None
    # A preempted worker is replaced by the sweep, which knows whether it is still wanted.
    return {**_merged(wished, extra), "signal": f"B:USR2@{SIGNAL_S}", "no-requeue": True}


def asks_for_gpus(config: LauncherConfig) -> bool:
    """Whether a worker's job gets a GPU."""
    flags = sbatch_flags(config)
    return "gpus-per-node" in flags or _names_gpus(flags)


def worker_script(
    config: LauncherConfig, flags: Flags, job_name: str, folder: Path, command: str
) -> str:
    """The script of a worker's job.

    Args:
        config: The launcher.
        flags: What `sbatch_flags` makes of it.
        job_name: The worker's own.
        folder: For the job's output.
        command: What the job runs.
    """
    # MuJoCo's device is of the login node; SLURM says which GPU it is here.
    setup = ["unset MUJOCO_EGL_DEVICE_ID", *setup_lines(config.cpus_per_task, config.setup)]
    return batch_script({**flags, "time": config.timeout_min}, job_name, folder, setup, command)


def controller_flags(config: LauncherConfig) -> Flags:
    """`launcher.controller` as long options of sbatch."""
    own = config.controller
    wished = {
        "partition": own.partition or config.partition,
        "account": own.account or config.account,
        "qos": own.qos or config.qos,
        "cpus-per-task": own.cpus_per_task,
        "mem": _memory(own.mem_gb),
    }
    flags = _merged(wished, _extra_flags("launcher.controller", own.additional_parameters))
    signal = f"B:USR2@{own.signal_s}"
    return {**flags, "time": own.timeout_min, "signal": signal, "requeue": True}


def controller_script(
    config: LauncherConfig, flags: Flags, job_name: str, log: Path, command: str
) -> str:
    """The script of a controller's job.

    Args:
        config: The launcher.
        flags: What `controller_flags` makes of it.
        job_name: The job's own.
        log: Every run of the job adds its output to this file.
        command: What the job runs, in the present working directory.
    """
    setup = [
        "trap '' USR2",  # until the controller handles it
        f"cd -- {shlex.quote(os.getcwd())} || exit 1",
        *setup_lines(config.controller.cpus_per_task, config.setup),
    ]
    return batch_script({**flags, "output": str(log)}, job_name, log.parent, setup, command)


def batch_script(
    flags: Flags, job_name: str, folder: Path, setup: Sequence[str], command: str
) -> str:
    """The text of a batch job; nothing is written.

    Args:
        flags: Long options of sbatch; an output among them takes standard error as well.
        job_name: What SLURM calls the job.
        folder: For its output, where no flag says otherwise.
        setup: Shell lines before the command.
        command: Replaces the shell, so that the batch step's process gets the job's signals itself.
    """
    text: str = _make_sbatch_string(
        f"exec {command}",
        folder,
        job_name=job_name,
        wckey=None,  # submitit's own, which a site that counts by wckeys refuses
        use_srun=False,
        setup=list(setup),
        stderr_to_stdout="output" in flags,
        additional_parameters=dict(flags),
    )
    return text


def worker_header(config: LauncherConfig, sweep_dir: Path) -> list[str]:
    """The lines of a worker's script that SLURM reads, without secrets; ID is the worker's."""
    folder, name = sweep_dir / WORKERS_DIR / "ID" / JOB_FOLDER, f"duqsweep-{sweep_dir.name}-ID"
    return _header(worker_script(config, sbatch_flags(config), name, folder, ""))


def controller_header(config: LauncherConfig, sweep_dir: Path) -> list[str]:
    """The same of the script that --as-job submits."""
    name, log = f"duqsweep-{sweep_dir.name}-controller-ID", sweep_dir / CONTROLLER_DIR / LOG
    return _header(controller_script(config, controller_flags(config), name, log, ""))


def _header(script: str) -> list[str]:
    return [masked(line) for line in script.splitlines() if line.startswith("#SBATCH")]


def options(flags: Flags) -> list[str]:
    """Flags as sbatch's command line has them."""
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in flags.items()]


def _memory(mem_gb: float | None) -> str | None:
    return f"{round(1024 * mem_gb)}M" if mem_gb else None


def _names_gpus(flags: Mapping[str, Any]) -> bool:
    """Whether GPUs are asked for by another option than `launcher.gpus_per_node`."""
    others = any(flags.get(key) is not None for key in GPU_FLAGS)
    return others or "gpu" in str(flags.get("gres") or "")


def _merged(wished: Mapping[str, Any], extra: Mapping[str, Any]) -> Flags:
    """What was wished, with the user's own options on top; None leaves an option out."""
    flags = {key: value for key, value in {**wished, **extra}.items() if value is not None}
    if {"mem-per-cpu", "mem-per-gpu"} & set(flags) and "mem" not in extra:
        flags.pop("mem", None)  # sbatch takes one of the three
    return flags


def _extra_flags(key: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`additional_parameters` of the section `key` of the configuration, as sbatch means them."""
    extra = {
        name.replace("_", "-"): _flag_value(f"{key}.additional_parameters.{name}", value)
        for name, value in parameters.items()
    }
    taken = sorted(set(extra) & set(OWN_FLAGS))
    if taken:
        raise ConfigError(
            f"{key}.additional_parameters must not set {taken[0]!r}: duqsweep sets it itself"
        )
    return extra


def _flag_value(key: str, value: Any) -> str | int | float | bool | None:
    """A value of additional_parameters as sbatch means it; None leaves the option out."""
    if value is None or value is False:
        return None
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, (str, int, float)):
        return value
    raise ConfigError(f"{key} must be a word, a number, true, false or a list, got {value!r}")
