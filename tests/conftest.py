"""One thread per test process, set before anything imports numpy or torch; examples without a clock.

Several test processes share the cores. Threads that wait for each other then take most of the time:
`tests/quant/test_greedy.py` needs more than three times the CPU seconds with two threads.
"""

from __future__ import annotations

import os

from hypothesis import settings

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

settings.register_profile("suite", deadline=None)  # a busy machine is no fault
settings.load_profile("suite")
