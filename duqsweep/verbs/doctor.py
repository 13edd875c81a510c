"""`duqsweep doctor`: what works on this machine, and what to do where something does not.

Overrides choose the policy and the suite, e.g. suite=libero_goal suite.renderer=egl.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace

from duqsweep.checkpoint.locate import check_checkpoint
from duqsweep.control.config.sweep_config import compose
from duqsweep.control.dispatch.devices import take_device
from duqsweep.envs.assets import OFFICIAL_TASKS, find_assets
from duqsweep.envs.libero_pro import PRO_SUITES
from duqsweep.spec import PolicySpec, SuiteSpec
from duqsweep.worker.ledger import make_ledger

# Pictures without anything in them are how a broken renderer shows.
MIN_CONTRAST = 10


def main(arguments: list[str]) -> int:
    """Check every part and print one line for each.

    Returns:
        0 when all that such a sweep needs works, else 1.
    """
    parser = argparse.ArgumentParser(prog="duqsweep doctor", description=__doc__)
    parser.add_argument("--traceback", action="store_true", help="show where a check failed")
    parser.add_argument("overrides", nargs="*", help="of another suite, policy or renderer")
    parsed = parser.parse_intermixed_args(arguments)
    base = compose(["name=doctor", "enqueue=[reference]", *parsed.overrides]).base
    needed = {
        "packages": _packages,
        "policy": lambda: _policy(base.policy),
        "simulator": lambda: check_simulator(base.suite),
        "torch.compile": _compile,
        "mlflow": _mlflow,
    }
    optional = {
        "gpu": _gpu,
        "slurm": _slurm,
        "official suites": lambda: check_assets(base.suite),
    }
    failed = [name for name, check in needed.items() if not _run(name, check, parsed.traceback)]
    for name, check in optional.items():
        _run(name, check, parsed.traceback, required=False)
    such = "such a" if parsed.overrides else "the default"
    print(f"broken: {', '.join(failed)}" if failed else f"all that {such} sweep needs works")
    return 1 if failed else 0


def _run(name: str, check: Callable[[], str], trace: bool, required: bool = True) -> bool:
    try:
        found = check()
    except Exception as error:  # the other checks run all the same
        mark = "FAIL" if required else "none"
        print(f"[{mark}] {name}: {' '.join(str(error).split()) or type(error).__name__}")
        if trace:
            traceback.print_exc(file=sys.stdout)
        return False
    print(f"[ ok ] {name}: {found}")
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
    from duqsweep.envs.libero import open_environment
    from duqsweep.envs.rendering import resolve_renderer

    take_device()
    environment = open_environment(suite)
    try:
        seen = environment.reset(make_ledger(suite)[0])
    finally:
        environment.close()
    for camera, picture in seen.images.items():
        if picture.std() < MIN_CONTRAST:
            raise RuntimeError(f"camera {camera} sees nothing: is libosmesa6 installed?")
    renderer = resolve_renderer(suite.renderer)
    return f"{suite.name} draws {', '.join(seen.images)} by {renderer}"


def _compile() -> str:
    import torch

    compiled = torch.compile(lambda x: torch.sin(x) + 1)
    x = torch.arange(4.0)
    if not torch.allclose(compiled(x), torch.sin(x) + 1):
        raise RuntimeError("a compiled function gives another result")
    return "compiles and agrees"


def _mlflow() -> str:
    with tempfile.TemporaryDirectory() as folder:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table
        client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
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
