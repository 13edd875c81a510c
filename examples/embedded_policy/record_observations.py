"""Record what the embedded policy sees on duq_mini: the file of suite `recorded`.

    python examples/embedded_policy/record_observations.py --out FILE.npz

Four moments of one reserved episode of every task, the same for every seed of a sweep of duq_mini.
The shipped file is duqsweep/envs/mini/recorded.npz.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from duqsweep.control.config.sweep_config import compose
from duqsweep.envs.libero import open_environment
from duqsweep.policy.load import load_policy
from duqsweep.worker.observations import collect, save_observations
from duqsweep.worker.simulator_pool import SimulatorPool


def main() -> None:
    """Roll out and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    base = compose(["+sweep=smoke"]).base
    policy = load_policy(base.policy, "cpu")
    with closing(open_environment(base.suite)) as environment:
        observations = collect(policy, base.suite, SimulatorPool.in_process(lambda: environment))
    save_observations(out, observations)
    print(f"{len(observations)} observations, {out.stat().st_size:,} bytes: {out}")


if __name__ == "__main__":
    main()
