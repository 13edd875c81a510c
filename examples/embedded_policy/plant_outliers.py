"""Give a trained policy the uneven channels of large ones, without changing what it computes.

    python examples/embedded_policy/plant_outliers.py --data DEMOS --checkpoint IN --out OUT

Policies of billions of parameters have input channels a hundred times larger than the median one; a
network of three million has none, so that rotations would have nothing to do in it. Each uneven
channel made here is multiplied by a power of two where it is produced and divided by the same where
it is consumed, which in exact arithmetic has no effect. Two kinds are planted:

- at `down_proj`, channels that are large now and then grow to a hundred times the median channel;
- at the inputs of q, k, v and of gate, up, some channels become small and their weight columns
  large, the imbalance that smoothing an activation leaves in the weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from dataset import make_frames, read_episodes
from network import predict
from torch import Tensor, nn

from duqsweep.policy.gemma import AdaptiveRmsNorm, RmsNorm
from duqsweep.policy.load import load_policy, save_checkpoint
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.preprocess import scale_pixels
from duqsweep.spec import PolicySpec

FRAMES = 96  # that the channels' sizes are read from


@dataclass(frozen=True)
class Plan:
    """How many channels of each kind, and how uneven."""

    down_channels: int = 1
    down_ratio: float = 100.0  # times the median channel
    quiet_channels: int = 4  # of each norm's output
    quiet_factor: float = 16.0
    seed: int = 0


@dataclass(frozen=True)
class Sizes:
    """How large the input channels of one layer are."""

    largest: Tensor  # (in,) of |x|
    mean_square: Tensor  # (in,)


def plant(module: Pi05, run: Callable[[], object], plan: Plan) -> None:
    """Rescale channels of language model and expert in place.

    Args:
        module: The network, in float32.
        run: Makes forwards that the channels' sizes are read from.
        plan: What to plant.
    """
    sizes = channel_sizes(module, run)
    generator = torch.Generator().manual_seed(plan.seed)
    for stack in (module.language_model, module.expert):
        for layer in stack.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for norm, consumers in (
                (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
                (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj)),
            ):
                scale_norm(norm, consumers, _quiet(sizes[consumers[0]], plan, generator))
            scale_between(mlp.up_proj, mlp.down_proj, _loud(sizes[mlp.down_proj], plan))


def scale_norm(norm: nn.Module, consumers: tuple[nn.Linear, ...], factors: Tensor) -> None:
    """Multiply a norm's output channels by `factors` (width,), and divide what reads them."""
    with torch.no_grad():
        if isinstance(norm, RmsNorm):
            norm.weight.copy_((1.0 + norm.weight) * factors - 1.0)
        elif isinstance(norm, AdaptiveRmsNorm):
            width = norm.dense.in_features
            scale, shift = slice(0, width), slice(width, 2 * width)
            norm.dense.weight[scale] *= factors[:, None]
            norm.dense.bias[scale] = (1.0 + norm.dense.bias[scale]) * factors - 1.0
            norm.dense.weight[shift] *= factors[:, None]
            norm.dense.bias[shift] *= factors
        else:
            raise TypeError(f"no rule for {type(norm).__name__}")
        for consumer in consumers:
            consumer.weight /= factors


def scale_between(producer: nn.Linear, consumer: nn.Linear, factors: Tensor) -> None:
    """Multiply the rows of `producer` and divide the columns of `consumer`."""
    with torch.no_grad():
        producer.weight *= factors[:, None]
        consumer.weight /= factors


def channel_sizes(module: nn.Module, run: Callable[[], object]) -> dict[nn.Module, Sizes]:
    """Sizes of the input channels of every linear layer while `run` runs."""
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].detach().flatten(0, -2)
        seen.setdefault(layer, []).append((rows.abs().amax(0), rows.square().mean(0)))

    linears = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(watch) for layer in linears]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return {
        layer: Sizes(
            torch.stack([largest for largest, _ in forwards]).amax(0),
            torch.stack([square for _, square in forwards]).mean(0),
        )
        for layer, forwards in seen.items()
    }


def _loud(sizes: Sizes, plan: Plan) -> Tensor:
    """(in,) powers of two: the channels with the rarest peaks grow to `down_ratio`."""
    factors = torch.ones_like(sizes.largest)
    peaks = sizes.largest / sizes.mean_square.sqrt().clamp_min(1e-12)
    chosen = peaks.topk(plan.down_channels).indices
    wanted = plan.down_ratio * sizes.largest.median() / sizes.largest[chosen].clamp_min(1e-12)
    factors[chosen] = torch.exp2(wanted.log2().round().clamp_min(0))
    return factors


def _quiet(sizes: Sizes, plan: Plan, generator: torch.Generator) -> Tensor:
    """(in,) factors: some channels from the middle half shrink by `quiet_factor`."""
    factors = torch.ones_like(sizes.largest)
    quarter = len(factors) // 4
    middle = sizes.largest.argsort()[quarter : 3 * quarter]
    chosen = middle[torch.randperm(len(middle), generator=generator)[: plan.quiet_channels]]
    factors[chosen] = 1.0 / plan.quiet_factor
    return factors


def main() -> None:
    """Command line: read a checkpoint, plant, check, write, and print the outliers' sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    policy = load_policy(PolicySpec("embedded", str(args.checkpoint)), "cpu")
    module = policy.module
    frames = make_frames(read_episodes(args.data, limit=60), policy.preprocessing.config, "cpu")
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(frames.pixels), generator=generator)[:FRAMES]
    images, prompt = scale_pixels(frames.pixels[chosen]), frames.prompt[chosen]
    noise = torch.randn(len(chosen), *frames.chunk.shape[1:], generator=generator)

    def run() -> Tensor:
        return predict(module, images, prompt, noise, 10)

    before = run()
    plant(module, run, Plan())
    change = (run() - before).abs().max().item()
    ratios: dict[str, list[float]] = {}
    planted = channel_sizes(module, run)
    for name, layer in module.named_modules():
        if layer in planted and name.endswith("down_proj"):
            largest = planted[layer].largest
            kind = "dit" if "expert.model" in name else "llm"
            ratio = (largest.max() / largest.median()).item()
            ratios.setdefault(f"{kind} down_proj", []).append(round(ratio, 1))
    save_checkpoint(args.out, module, policy.preprocessing.config)
    print(json.dumps({"largest_change": change, "largest_over_median": ratios}))
    if change > 1e-5:
        raise SystemExit(f"the policy changed by {change}")


if __name__ == "__main__":
    main()
