"""This package's operators need no compiler to be called."""

from __future__ import annotations

import subprocess
import sys

# A new process: here, another test may have imported the compiler.
CALLS = """
import sys, torch
from duqsweep.kernels.gelu_linear import gelu_linear
from duqsweep.kernels.add_norm import add_norm
rows, weight, bias = torch.randn(4, 8), torch.randn(16, 8), torch.randn(16)
add_norm(gelu_linear(rows, weight, bias), torch.ones(4, 16), torch.ones(16), None)
sys.exit("torch._dynamo" in sys.modules)
"""


def test_a_call_that_is_not_compiled_does_not_import_the_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", CALLS]).returncode == 0
