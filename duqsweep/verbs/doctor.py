"""`duqsweep doctor`: what works on this machine, and what to do where something does not.

Overrides choose the policy and the suite, e.g. suite=libero_goal suite.renderer=egl. With
launcher=slurm, or launcher=local, a job looks at a node (or this machine) as a worker's job would.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from duqsweep.checkpoint.locate import check_checkpoint
from duqsweep.control.config.sweep_config import LauncherConfig, SweepConfig, compose
from duqsweep.control.dispatch.devices import take_device
from duqsweep.control.tracking.mlflow_client import open_client
from duqsweep.envs.assets import OFFICIAL_TASKS, find_assets
from duqsweep.envs.libero_pro import PRO_SUITES
from duqsweep.errors import ConfigError
from duqsweep.spec import PolicySpec, SuiteSpec
from duqsweep.verbs.folder import tracking_uri
from duqsweep.verbs.interrupt import terminate_as_interrupt


def main(arguments: list[str]) -> int:
    """Check every part and print one line for each.

    Returns:
        0 when all that such a sweep needs works, else 1.
    """
    parser = argparse.ArgumentParser(prog="duqsweep doctor", description=__doc__)
    parser.add_argument("--traceback", action="store_true", help="show where a check failed")
    parser.add_argument(
        "--wait-min", type=float, default=10.0, help="for a job's answers (default: 10)"
    )
    parser.add_argument("overrides", nargs="*", help="of another suite, policy or renderer")
    parsed = parser.parse_intermixed_args(arguments)
    if not parsed.wait_min > 0:
        raise ConfigError(f"--wait-min must be positive, got {parsed.wait_min:g}")
    # One episode, because a small suite's ledger holds fewer than a sweep's default.
    around = ["name=doctor", "enqueue=[reference]", "budget.episodes_per_trial=1"]
    config = compose([*around, *parsed.overrides])
    base = config.base
    is_slurm = config.launcher.name == "slurm"
    evaluates = {
        "policy": lambda: _policy(base.policy),
        # Before the simulator: OSMesa and Triton both bring LLVM, and this order alone is safe.
        "torch.compile": _compile,
        "compiled layers": _compiled_layers,
        "simulator": lambda: check_simulator(base.suite),
    }
    needed = {
        "packages": _packages,
        **({"slurm": lambda: _slurm_job(config.launcher)} if is_slurm else evaluates),
        "mlflow": check_mlflow,
    }
    optional = {
        **({} if is_slurm else {"gpu": _gpu, "slurm": _slurm}),
        "official suites": lambda: check_assets(base.suite),
    }
    failed = [name for name, check in needed.items() if not _run(name, check, parsed.traceback)]
    for name, check in optional.items():
        _run(name, check, parsed.traceback, required=False)
    asks = any(word.startswith("launcher") for word in parsed.overrides)
    if "slurm" not in failed and (is_slurm or (asks and config.launcher.name == "local")):
        with terminate_as_interrupt():
            failed += _probe(config, 60.0 * parsed.wait_min)
    such = "such a" if parsed.overrides else "the default"
    print(f"broken: {', '.join(failed)}" if failed else f"all that {such} sweep needs works")
    return 1 if failed else 0


def _probe(config: SweepConfig, wait_s: float) -> list[str]:
    """Let a job look around, and print what it finds; returns the names of what is broken.

    Ctrl-C ends the job.
    """
    # Imported here: submitit is slow to import.
    from duqsweep.control.dispatch.probing import probe_findings

    parent = config.directory.parent
    made = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="duqsweep-doctor-", dir=parent))
    failed = []
    addresses = tuple(filter(None, (tracking_uri(config), config.storage_url)))
    found = probe_findings(config, folder, addresses, wait_s, lambda line: print(f"       {line}"))
    try:
        with closing(found):
            for finding in found:
                _print(finding.name, finding.text, finding.is_ok, finding.is_needed)
                if not finding.is_ok and finding.is_needed:
                    failed.append(finding.name)
    finally:
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
            if made:
                with suppress(OSError):  # others use it by now
                    parent.rmdir()
    if failed:
        print(f"       the job's files are in {folder}")
    return failed


def _print(name: str, text: str, is_ok: bool, is_needed: bool) -> None:
    mark = " ok " if is_ok else "FAIL" if is_needed else "none"
    print(f"[{mark}] {name}: {text}", flush=True)


def _run(name: str, check: Callable[[], str], trace: bool, required: bool = True) -> bool:
    try:
        found = check()
    except Exception as error:  # the other checks run all the same
        _print(name, " ".join(str(error).split()) or type(error).__name__, False, required)
        if trace:
            traceback.print_exc(file=sys.stdout)
        return False
    _print(name, found, True, required)
    return True


def _packages() -> str:
    names = ("torch", "hydra-core", "optuna", "submitit", "mlflow", "hf-libero", "mujoco")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _policy(spec: PolicySpec) -> str:
    check_checkpoint(spec)
    from duqsweep.policy.load import load_policy

    policy = load_policy(spec, "cpu")
    weights = sum(parameter.numel() for parameter in policy.module.parameters())
    which = spec.checkpoint or "the shipped one"
    return f"{which} loads, {weights / 1e6:.2f} million parameters"


def check_simulator(suite: SuiteSpec) -> str:
    """Draw the first pictures of a suite; raises where they are empty or cannot be drawn."""
    from duqsweep.worker.node_checks import draw

    take_device()
    return draw(suite)


def _compile() -> str:
    import torch

    compiled = torch.compile(lambda x: torch.sin(x) + 1)
    x = torch.arange(4.0)
    if not torch.allclose(compiled(x), torch.sin(x) + 1):
        raise RuntimeError("a compiled function gives another result")
    return "compiles and agrees"


def _compiled_layers() -> str:
    from duqsweep.kernels.cpp_layers import check_compiled

    return f"C++, by {check_compiled()}"


def check_mlflow() -> str:
    """Create a database of MLflow in a temporary folder; raises where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        client = open_client(f"sqlite:///{folder}/mlflow.db")
        client.create_experiment("doctor", artifact_location=folder)
    return "writes a database"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA device; policies run on the CPU")
    return torch.cuda.get_device_name()


def _slurm() -> str:
    if not shutil.which("sbatch"):
        raise RuntimeError("no sbatch on PATH; use launcher=local")
    run = subprocess.run(["sinfo", "-h", "-o", "%P"], capture_output=True, text=True, timeout=20)
    if run.returncode:
        raise RuntimeError(f"sinfo: {run.stderr.strip()}")
    return f"partitions {' '.join(run.stdout.split())}"


def _slurm_job(config: LauncherConfig) -> str:
    """SLURM would take a worker's job."""
    from duqsweep.control.dispatch.dispatcher import open_launcher

    open_launcher(config).check()
    return f"takes such jobs; {_slurm()}"


def check_assets(suite: SuiteSpec) -> str:
    """Where LIBERO's assets are, and whether they are its own; raises ConfigError if missing."""
    of_libero = suite.name in OFFICIAL_TASKS or suite.name in PRO_SUITES
    name = suite.name if of_libero else "libero_10"
    found = find_assets(replace(suite, name=name))
    if not found.changed:
        return f"all {len(found.needed)} files of {name} in {found.folder} are LIBERO's own"
    return (
        f"{len(found.changed)} of the {len(found.needed)} files of {name} in {found.folder} are "
        "stand-ins: pictures are not LIBERO's"
    )
