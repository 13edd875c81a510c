"""What a Triton kernel does that may start before the kernel before it has ended.

That is programmatic dependent launch: a kernel lets the next one start as soon as it has begun
itself, and waits before it reads or writes what an earlier kernel writes or reads.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def wait_for_previous_kernel():
    """Wait until the kernel before has ended, and empty this multiprocessor's L1 cache.

    The wait alone leaves in that cache what kernels before have loaded from memory that is now
    another tensor's.
    """
    tl.extra.cuda.gdc_wait()
    tl.inline_asm_elementwise(
        "fence.acquire.gpu; mov.u32 $0, 0;", "=r", [], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def launch_then_wait(PDL: tl.constexpr):
    """Let the next kernel start, then wait for the previous one; without PDL, nothing."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()
        wait_for_previous_kernel()
