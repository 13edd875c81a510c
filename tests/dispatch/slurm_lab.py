"""A private SLURM cluster on loopback, for whoever runs the tests: no root, munge or database.

Knowledge of what such a cluster needs lies in the comments: each line that has one was missed once.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = 2
BROKEN = "broken"  # a file that lets every prolog fail
CPUS = 8  # of a node; more than this machine has, see config_overrides
MEMORY_MB = 16000
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue")

CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
CommunicationParameters=NoAddrCache
StateSaveLocation={lab}/state
SlurmctldPidFile={lab}/run/slurmctld.pid
SlurmctldLogFile={lab}/log/slurmctld.log
SlurmdPidFile={lab}/run/slurmd-%n.pid
SlurmdLogFile={lab}/log/slurmd-%n.log
SlurmdSpoolDir={lab}/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
Prolog={lab}/etc/prolog
MpiDefault=none
SwitchType=switch/none
# Without OverMemoryKill nothing holds a job to its --mem.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
MinJobAge=300
KillWait=2
MessageTimeout=5
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=2,sched_min_interval=0,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
# config_overrides lets a node claim more CPUs than there are.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PropagateResourceLimitsExcept=ALL
DebugFlags=NO_CONF_HASH
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
"""
NODE = (
    "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} State=UNKNOWN\n"
)
PARTITION = "PartitionName={} Nodes=ALL State=UP MaxTime=INFINITE DefMemPerCPU=100 {}\n"
PARTITIONS = PARTITION.format(
    "low", "Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=3"
) + PARTITION.format("high", "PriorityTier=10 PreemptMode=OFF")


def is_installed() -> bool:
    return all(shutil.which(program, path=_path()) for program in PROGRAMS)


class SlurmLab:
    """One controller and its nodes under a folder; clients need only SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "etc" / "slurm.conf"
        self.names = [f"n{i + 1}" for i in range(NODES)]

    def start(self) -> None:
        for name in ("etc", "run", "log", "state", "spool"):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        ports = free_ports(NODES + 1)
        host = socket.gethostname().partition(".")[0]
        text = CONF.format(host=host, port=ports[0], user=getpass.getuser(), lab=self.folder)
        for name, port in zip(self.names, ports[1:], strict=True):
            text += NODE.format(name=name, port=port, cpus=CPUS, memory=MEMORY_MB)
        self.conf.write_text(text + PARTITIONS)
        prolog = self.folder / "etc" / "prolog"
        prolog.write_text(f"#!/bin/sh\n! [ -e {self.folder / BROKEN} ]\n")
        prolog.chmod(0o755)
        (self.folder / "etc" / "cgroup.conf").write_text("CgroupAutomount=no\nConstrainCores=no\n")
        self.run("slurmctld")
        for name in self.names:
            (self.folder / "spool" / name).mkdir()
            self.run("slurmd", "-N", name)
        until(self._is_ready, 30.0, "all nodes idle")

    def stop(self) -> None:
        self.run("scancel", "--partition=low")
        self.run("scancel", "--partition=high")
        until(lambda: not self.living(), 30.0, "no job left")
        pids = [int(path.read_text()) for path in (self.folder / "run").glob("*.pid")]
        with suppress(TimeoutError):  # a slurmd waits for jobs that are still COMPLETING
            _end(pids, signal.SIGTERM, 5.0)
        _end([*pids, *self._steps()], signal.SIGKILL, 20.0)

    def _steps(self) -> list[int]:
        """What looks after the processes of a job, and would look for its slurmd for ever."""
        mark, found = f"SLURM_CONF={self.conf}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                is_step = (folder / "comm").read_text().strip() == "slurmstepd"
                if is_step and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def end(self, daemon: str, how: signal.Signals) -> None:
        """End slurmctld, or the slurmd of a node ("slurmd-n1"); its jobs' processes live on."""
        pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
        os.kill(pid, how)
        until(lambda: not Path(f"/proc/{pid}").exists(), 20.0, f"{daemon} gone")

    def start_controller(self) -> None:
        self.run("slurmctld")
        until(self._answers, 20.0, "the controller answers")

    def start_node(self, name: str) -> None:
        self.run("slurmd", "-N", name)
        until(lambda: self.state(name) in ("idle", "mixed"), 20.0, f"{name} is back")

    @contextmanager
    def broken(self) -> Iterator[None]:
        """No node can begin a job; those that tried are drained until the end of this."""
        (self.folder / BROKEN).touch()
        yield
        (self.folder / BROKEN).unlink()
        for name in self.names:
            if self.state(name).startswith("drain"):
                self.run("scontrol", "update", f"nodename={name}", "state=resume")

    def state(self, node: str) -> str:
        return self.run("sinfo", "-h", "-n", node, "-p", "low", "-o", "%T").strip()

    def living(self, field: str = "%i") -> list[str]:
        """A field of each job that has not ended; what has may stay COMPLETING for a minute."""
        return self.run("squeue", "-h", "-t", "PENDING,RUNNING,SUSPENDED", "-o", field).split()

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=30,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": _path(), "SLURM_CONF": str(self.conf)}

    def _answers(self) -> bool:
        try:
            self.run("squeue", "-h")
        except RuntimeError:
            return False
        return True

    def _is_ready(self) -> bool:
        try:
            return (
                self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%T").split() == ["idle"] * NODES
            )
        except RuntimeError:
            return False  # the controller does not listen yet


def _end(pids: list[int], how: signal.Signals, seconds: float) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a test killed it, or it has ended
            os.kill(pid, how)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), seconds, "daemons gone")


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _path() -> str:
    return f"/usr/sbin:/sbin:{os.environ['PATH']}"
