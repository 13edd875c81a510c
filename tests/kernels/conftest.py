"""Kernels run in Triton's interpreter where there is no GPU; to be decided before they are made."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
