"""Kernels of a prompt's rows are compiled once for all lengths."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton")

from duqsweep.kernels import attention, attention_parts, per_token_quant, product_kernels
from duqsweep.kernels.expert import attention as expert_attention
from duqsweep.kernels.machine import interpreted

KERNELS = [
    (attention._attend, "tokens"),
    (attention_parts._combine, "tokens"),
    (per_token_quant._per_token_quant, "tokens"),
    (product_kernels.general_kernel, "tokens"),
    (product_kernels.many_tokens_kernel, "tokens"),
    (expert_attention.attention_kernel, "prefix"),
]


@pytest.mark.parametrize(("kernel", "length"), KERNELS)
def test_a_length_that_is_a_multiple_of_16_is_no_other_kernel(kernel: Any, length: str) -> None:
    if interpreted():  # it compiles nothing, and keeps what it was told
        assert kernel.kwargs["do_not_specialize"] == [length]
        return
    (parameter,) = (found for found in kernel.params if found.name == length)
    assert parameter.do_not_specialize
