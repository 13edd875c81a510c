"""The machine that was measured on, and the names of forms on it."""

from __future__ import annotations

import platform
from dataclasses import asdict

import torch

from latency.bench import Bench
from latency.floors import Ceilings


def machine(bench: Bench, best: Ceilings) -> dict[str, object]:
    """The hardware and versions that times depend on."""
    gpu = bench.device == "cuda"
    return {
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "policy": bench.policy,
        "dtype": str(bench.dtype).removeprefix("torch."),
        "num_steps": bench.num_steps,
        **asdict(best),
    }


def device_name(device: str) -> str:
    """The card, or the CPU's architecture."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def name_on(bench: Bench, form: str) -> str:
    """A form's name on this device."""
    if bench.device == "cuda":
        return form
    return form.replace("bf16", "fp32").replace("_graph", "_compile")
