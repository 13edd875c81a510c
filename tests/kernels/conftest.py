"""Without a GPU, kernels run in Triton's interpreter, here faster."""

from __future__ import annotations

import torch

if not torch.cuda.is_available():
    from quick_interpreter import make_quick

    make_quick()
