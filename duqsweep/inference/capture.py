"""Captures a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch


@contextmanager
def captured(
    pool: Any, stream: torch.cuda.Stream, errors: Literal["global", "thread_local"] = "global"
) -> Iterator[torch.cuda.CUDAGraph]:
    """A graph of what the block launches.

    `torch.cuda.graph` does the same, but first gives back all memory that torch keeps, which takes
    0.1 s and as much again when it is needed. Where memory may be short, call
    `torch.cuda.empty_cache` before the first of several captures.

    Args:
        pool: Of `torch.cuda.graph_pool_handle`; graphs that share one never run at the same time.
        stream: Owns what libraries work with meanwhile.
        errors: Whose calls must be safe during a capture: those of all threads, or of this one.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(stream.device)
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool, capture_error_mode=errors)
        try:
            yield graph
        finally:
            graph.capture_end()
