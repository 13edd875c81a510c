"""How tests share a machine: one thread per process, long files first, examples without a clock,
a cache folder of their own, the same for all processes of one run, and configurations that are
read and composed once per process.

Threads are set before anything imports numpy or torch. With several test processes per core,
threads that wait for each other take most of the time: `tests/quant/test_greedy.py` needs more than
three times the CPU seconds with two threads. The helpers of torch.compile are processes that load
torch: with them a test takes 17 CPU seconds, and 5 without.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.util import find_spec

import pytest
from hypothesis import settings
from kept_configurations import keep

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):
    os.environ.setdefault(name, "1")

# Without a GPU, kernels run in Triton's interpreter. It is chosen as they are defined, i.e. when
# any test module imports them. The environments of other versions of Python have no torch.
if find_spec("torch") is not None:
    import torch

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("suite", deadline=None)  # a busy machine is no fault
settings.load_profile("suite")
keep()

# Files of more than half a minute, so that none is begun when the others end. Those that wait for
# SLURM or for something to count as hung stand between those that compute.
LONG = (
    "test_slurm_refusals.py",
    "test_kill.py",
    "test_verdicts.py",
    "test_official_suites.py",
    "test_fates.py",
    "test_browser.py",
    "test_sweep.py",
    "test_slurm_faults.py",
    "test_libero_pro.py",
    "test_control_step.py",
    "test_tracking.py",
    "test_places.py",
    "test_faults.py",
    "test_latency.py",
    "test_environment_contract.py",
    "test_controller_job.py",
    "test_evaluate.py",
    "test_probing.py",
    "test_study.py",
    "test_slurm.py",
    "test_contract.py",
    "test_odd_files.py",
    "test_odd_trials.py",
    "test_reattach.py",
    "test_identity.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; xdist gives files to processes in this order."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Collect garbage without looking at what the tests' modules have imported, for good.

    Triton is loaded before anything draws, if torch was: it brings LLVM, and so does Mesa. Loaded
    after Mesa's, for torch.compile, Triton's ends the process.
    """
    if "torch" in sys.modules:
        import triton  # noqa: F401
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["XDG_CACHE_HOME"] = str(run / "cache")
