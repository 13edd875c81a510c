"""torch.compile, as all policies use it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

COMPILED_FORMS = 256  # of a function, over all trials of a process


def compiled(function: Callable[..., Result], **settings: Any) -> Callable[..., Result]:
    """A function that is compiled when it is first called, and again for another kind of layer."""
    torch._dynamo.config.recompile_limit = COMPILED_FORMS
    return torch.compile(function, fullgraph=True, **settings)
