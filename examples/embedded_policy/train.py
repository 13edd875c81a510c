"""Train the embedded policy by behaviour cloning with flow matching, for a given time.

    python examples/embedded_policy/train.py --data DEMOS --out FOLDER --minutes 4 --device cuda

writes `config.json` and `weights.safetensors` (an exponential average of the weights), again and
again while it runs, and `train.jsonl`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import torch
from dataset import Frames, make_config, make_frames, read_episodes
from network import (
    initialise,
    predict,
)
from trainer import Trainer

from duqsweep.checkpoint.sizes import PolicySizes, sizes_of
from duqsweep.policy.load import save_checkpoint
from duqsweep.policy.pi05 import Pi05
from duqsweep.policy.preprocess import scale_pixels

VALIDATION_EVERY = 25  # one episode in 25 is held out
VALIDATION_FRAMES = 512
SAVE_EVERY_S = 40.0


def validation_error(network: Pi05, frames: Frames, num_steps: int = 10) -> list[float]:
    """RMSE of normalised actions on held-out frames, one value per task."""
    device = frames.pixels.device
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(frames.pixels), generator=generator)[:VALIDATION_FRAMES].to(device)
    noise = torch.randn(len(chosen), *frames.chunk.shape[1:], generator=generator).to(device)
    answer = predict(
        network.to(device),
        scale_pixels(frames.pixels[chosen]),
        frames.prompt[chosen],
        noise,
        num_steps,
    )
    error = (answer - frames.chunk[chosen]).square().mean(-1)
    weight, task = frames.weight[chosen], frames.task[chosen]
    rows = [task == number for number in sorted(set(task.tolist()))]
    return [round((error * weight)[r].sum().div(weight[r].sum()).sqrt().item(), 4) for r in rows]


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=None, help="of language model and expert")
    parser.add_argument("--mlp", type=int, default=None, help="of language model and expert")
    parser.add_argument("--vision-depth", type=int, default=None)
    parser.add_argument("--merge", type=int, default=None, help="side of a square of patches")
    return parser.parse_args()


def chosen_sizes(args: argparse.Namespace) -> PolicySizes:
    """The embedded policy's sizes, with the changes asked for."""
    sizes = sizes_of("embedded")
    changes = {name: getattr(args, name) for name in ("width", "mlp") if getattr(args, name)}
    return dataclasses.replace(
        sizes,
        llm=dataclasses.replace(sizes.llm, **changes),
        expert=dataclasses.replace(sizes.expert, **changes),
        vision=dataclasses.replace(
            sizes.vision,
            depth=args.vision_depth or sizes.vision.depth,
            merge=args.merge or sizes.vision.merge,
        ),
    )


def main() -> None:
    """Train until the time is up."""
    args = parse()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    start = time.monotonic()
    episodes = read_episodes(args.data)
    held_out = episodes[::VALIDATION_EVERY] if len(episodes) > VALIDATION_EVERY else episodes[:1]
    kept = [e for i, e in enumerate(episodes) if i % VALIDATION_EVERY or len(episodes) <= 25]
    config = make_config(episodes, chosen_sizes(args))
    frames = make_frames(kept, config, args.device)
    validation = make_frames(held_out, config, args.device)
    module = Pi05(config.sizes)
    initialise(module, config)
    trainer = Trainer(module.to(args.device), frames, config, args.batch)
    print(
        f"{len(episodes)} episodes, {len(frames.pixels)} frames, "
        f"{sum(p.numel() for p in trainer.parameters)} parameters, "
        f"{time.monotonic() - start:.0f} s to load",
        flush=True,
    )
    update = trainer.captured()
    args.out.mkdir(parents=True, exist_ok=True)
    start, saved, step = time.monotonic(), 0.0, 0
    while (seconds := time.monotonic() - start) < 60 * args.minutes:
        trainer.schedule(step, seconds / (60 * args.minutes))
        update()
        step += 1
        if step % 20 == 0:
            trainer.loss.item()  # wait for the device, so that the clock above is true
        if seconds - saved > SAVE_EVERY_S:
            saved = seconds
            report(trainer, validation, args.out, step, seconds)
    report(trainer, validation, args.out, step, time.monotonic() - start)


def report(trainer: Trainer, validation: Frames, out: Path, step: int, seconds: float) -> None:
    """Save the averaged weights and say how training stands."""
    network = trainer.averaged()
    save_checkpoint(out, network, trainer.config)
    line = {
        "step": step,
        "seconds": round(seconds, 1),
        "epochs": round(step * trainer.batch / len(trainer.frames.pixels), 1),
        "loss": round(trainer.loss.item(), 4),
        "validation": validation_error(network, validation),
    }
    with (out / "train.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(out.name, json.dumps(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
