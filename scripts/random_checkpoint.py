"""Writes a pi0.5 checkpoint of random weights, statistics and tokenizer included.

    python scripts/random_checkpoint.py /tmp/random_pi05
    python -m duqsweep evaluate policy=pi05_libero policy.checkpoint=/tmp/random_pi05 …

At full size it takes 6.7 GB of disk. `--small` writes 6 MB that a laptop runs. `--distilled 1 2`
makes it a student of one and two denoising steps with a target time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from duqsweep.checkpoint.pi05_config import NAME
from duqsweep.checkpoint.pi05_folder import WEIGHTS
from duqsweep.checkpoint.sizes import sizes_of
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random


def main() -> None:
    """Write it, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=("openpi", "lerobot"), default="openpi")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--small", action="store_true", help="few and narrow layers")
    parser.add_argument("--distilled", type=int, nargs="+", default=[], metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sizes = small_sizes() if options.small else sizes_of(NAME)
    asked = RandomPi05(
        sizes=replace(sizes, target_time=bool(options.distilled)),
        layout=options.layout,
        dtype=getattr(torch, options.dtype),
        device="cuda" if torch.cuda.is_available() else "cpu",
        seed=options.seed,
        distilled_steps=tuple(options.distilled),
    )
    start = time.perf_counter()
    write_random(options.folder, asked)
    size = (options.folder / WEIGHTS).stat().st_size
    took = time.perf_counter() - start
    print(f"{options.folder}: {size / 1e9:.3f} GB, {options.layout}'s layout, in {took:.1f} s")


if __name__ == "__main__":
    main()
