"""Errors of the embedded policy under each rotation, without episodes: of layers and of actions.

python benchmarks/action_error.py           # the table of docs/rotations.md: 4 minutes, one core
python benchmarks/action_error.py --include vision_all --bits 8,8 --block 16
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from duqsweep.checkpoint.sizes import linear_layers, sizes_of
from duqsweep.control.config.sweep_config import compose
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.seams import Observation, Policy
from duqsweep.spec import TrialSpec
from duqsweep.worker.cache import WorkerCache
from duqsweep.worker.fidelity import action_error
from duqsweep.worker.noise import flow_noise

ROTATIONS = ("none", "hadamard", "svd", "greedy")
BITS = ("4,8", "3,8", "4,4")
BASE = ("name=action_error", "suite=recorded", "budget.episodes_per_trial=1", "enqueue=[reference]")
NOISES = 4  # flow noises per observation
ROWS = 512  # inputs per layer on which its error is measured


@dataclass(frozen=True)
class Errors:
    """Errors of one setting relative to the unquantized policy."""

    layers: float  # |quantized output - output| / |output|, geometric mean over the layers
    actions: float  # root mean square of normalised actions


def errors_of(spec: TrialSpec, bench: WorkerCache) -> Errors:
    """Both errors, on observations that calibration did not use."""
    reference = bench.reference(spec.policy, "cpu")
    observations = bench.observations(reference, spec.suite, Path())
    layers = linear_layers(sizes_of(spec.policy.name))
    bits = select_layers(spec.quant, layers)
    stats = bench.statistics(reference, observations, bits, spec.quant, layers)
    exact = reference.policy
    policy = reference.policy.copy(spec.policy.num_steps, spec.policy.times, False)
    freeze(policy.module, bits, spec.quant, stats, None, reference.id)
    seen = inputs_of(exact, list(bits), lambda: act(exact, observations.measured))
    squares = [
        action_error(policy, exact, observations.measured, seed) ** 2
        for seed in range(1, NOISES + 1)
    ]
    return Errors(
        layers=layers_error(exact.module, policy.module, seen),
        actions=float((sum(squares) / NOISES) ** 0.5),
    )


def inputs_of(policy: Policy, names: Sequence[str], run: Callable[[], None]) -> dict[str, Tensor]:
    """Up to ROWS inputs of each layer, spread evenly over its forwards."""
    parts: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: parts[name].append(inputs[0].detach().flatten(0, -2))

    handles = [
        policy.module.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names
    ]
    run()
    for handle in handles:
        handle.remove()
    rows = {name: torch.cat(kept) for name, kept in parts.items()}
    return {name: every[:: max(1, len(every) // ROWS)][:ROWS] for name, every in rows.items()}


def act(policy: Policy, observations: Sequence[Observation]) -> None:
    """One call per observation."""
    for number, observation in enumerate(observations):
        policy.act(observation, flow_noise((1, number), policy.horizon, policy.action_dim))


@torch.no_grad()
def layers_error(exact: nn.Module, quantized: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Geometric mean of the layers' relative errors."""
    logs = []
    for name, rows in inputs.items():
        wanted = exact.get_submodule(name)(rows)
        found = quantized.get_submodule(name)(rows)
        logs.append(((found - wanted).norm() / wanted.norm()).log())
    return float(torch.stack(logs).mean().exp())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, each line as soon as it is computed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--include", default="llm_dit_all", help="a name of conf/config.yaml")
    parser.add_argument("--rotation", nargs="+", default=ROTATIONS, choices=ROTATIONS)
    parser.add_argument("--block", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--bits", nargs="+", default=BITS, metavar="W,A")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    bench = WorkerCache()
    pairs = [tuple(map(int, pair.split(","))) for pair in options.bits]
    names = [f"W{weight}A{act}" for weight, act in pairs]
    heads = [f"{name}, {what}" for what in ("layers", "actions") for name in names]
    print(f"| rotation | block | {' | '.join(heads)} | seconds |")
    print("|---|---|" + "---|" * (len(heads) + 1))
    for rotation in options.rotation:
        for block in options.block if rotation != "none" else options.block[:1]:
            start = time.perf_counter()
            found = []
            for weight_bits, act_bits in pairs:
                words = [
                    f"quant.include={options.include}",
                    f"quant.rotation={rotation}",
                    f"quant.block_size={block}",
                    f"quant.weight_bits.default={weight_bits}",
                    f"quant.act_bits={act_bits}",
                ]
                spec = compose([*BASE, *words, *options.overrides]).base.spec({})
                found.append(errors_of(spec, bench))
            cells = [f"{e.layers:.3f}" for e in found] + [f"{e.actions:.3f}" for e in found]
            seconds = time.perf_counter() - start
            where = "–" if rotation == "none" else block
            print(f"| `{rotation}` | {where} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
