"""One thread per test process, set before anything imports numpy or torch.

Several test processes share the cores. Threads that wait for each other then take most of the time:
`tests/quant/test_greedy.py` needs more than three times the CPU seconds with two threads.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
