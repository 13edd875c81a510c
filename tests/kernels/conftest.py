"""Without a GPU, kernels run in Triton's interpreter; this must be set before they are defined."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    from quick_interpreter import make_quick

    make_quick()
