"""Lower bounds of a call's time: its bytes and operations over the machine's measured rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

from duqsweep.control.explain.cost import PARTS, call_costs
from duqsweep.spec import QuantSpec
from latency.bench import Bench
from latency.registry import Form

RUN_BY = {
    "vision": {"vision"},
    "prefix": {"vision", "llm"},
    "policy": set(PARTS),
    "expert": {"dit"},
}
REPEATS = 6


@dataclass(frozen=True)
class Ceilings:
    """The machine's measured peak rates."""

    copy_tb_s: float  # bytes read plus bytes written
    matmul_tflop_s: float  # in the policy's dtype
    int8_top_s: float  # `matmul_tflop_s` where there are no int8 products


@torch.no_grad()
def ceilings(bench: Bench) -> Ceilings:
    """Measure a large copy and large matrix products; the best of several runs."""
    gpu = bench.device == "cuda"
    source = torch.rand(2**28 if gpu else 2**24, device=bench.device)
    target = torch.empty_like(source)
    side = 8192 if gpu else 512
    left, right = torch.randn(2, side, side, device=bench.device).to(bench.dtype)
    moved = 2 * source.numel() * source.element_size()
    products = 2 * side**3
    matmul = products / _best(bench, lambda: left @ right) / 1e12
    int8 = matmul
    if gpu:
        codes, others = torch.randint(-127, 128, (2, side, side), device=bench.device).char()
        int8 = products / _best(bench, lambda: torch._int_mm(codes, others.t())) / 1e12
    return Ceilings(moved / _best(bench, lambda: target.copy_(source)) / 1e12, matmul, int8)


def floor_ms(bench: Bench, form: Form, best: Ceilings) -> float:
    """The model: per forward, each part reads its weights once, or does its operations.

    Integer forms read packed weights and count operations at the rate of int8; all others read
    weights of full precision. Rotations are not counted.
    """
    quant = form.quant if form.integer and form.quant else QuantSpec()
    costs = call_costs(bench.policy, bench.sizes, bench.num_steps, quant, bench.reads)
    plain = call_costs(bench.policy, bench.sizes, bench.num_steps, QuantSpec(), bench.reads)
    total = 0.0
    for cost, unquantized in zip(costs, plain, strict=True):
        if cost.part in RUN_BY[form.scope]:
            rate = best.int8_top_s if cost.quantized else best.matmul_tflop_s
            reading = cost.packed_bytes / best.copy_tb_s
            total += max(reading, unquantized.flops / rate) / 1e9
    return total


def _best(bench: Bench, work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        bench.sync()
        tick = perf_counter()
        work()
        bench.sync()
        times.append(perf_counter() - tick)
    return min(times)
