"""`duqsweep init NAME`: a commented sweep file of your own, which runs at once."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from duqsweep import files
from duqsweep.conf_dir import group_options, own_conf_dir
from duqsweep.control.config.sweep_config import check_name
from duqsweep.errors import ConfigError

TEMPLATE = """\
# @package _global_
# How fast can the shipped policy be, quantized, before it fails? Change what you like; every value
# is checked before anything runs. To see what this would do, every key with its value, and what the
# keys of a trial mean:
#   python -m duqsweep plan +sweep={name}
#   python -m duqsweep +sweep={name} --cfg job
#   python -m duqsweep explain --settings
name: {name}

# What is searched: keys of a trial, with choice(a, b), interval(low, high), int(interval(1, 10)) or
# tag(log, interval(…)).
space:
  quant.include: choice(dit_all, dit_mlp)      # layers: a name of conf/config.yaml, or a regex
  quant.weight_bits.default: choice(3, 4, 8)   # 2 to 8, or 16 to leave them as they are
  policy.num_steps: int(interval(2, 10))       # denoising steps of a policy call
  # quant.block_size: choice(16, 32, 64)       # channels that one rotation mixes
  # quant.rotation: choice(hadamard, none)
  # runtime.compile: choice(true, false)       # half a minute per compiled trial on a CPU

# Searched only where it means something:
# when:
#   quant.block_size: quant.rotation != none

# What all trials have that is not searched:
quant:
  act_bits: 8

# Evaluated first, by their names in conf/plans.yaml. Every trial is compared with the reference,
# the unquantized policy.
enqueue: [reference]

# What is traded. With the kernel `fake` few bits save no time; with weights_mb they count.
objectives:
  - name: success_rate
  - name: episode_time_s
  # - name: weights_mb

budget:
  trials: 6
  episodes_per_trial: 6 # each of the six tasks once; more tell more

# Other policies, suites, launchers and samplers: add e.g. launcher=slurm to the command, or
# defaults:
#   - override /launcher: slurm
#   - override /sampler: kghv
"""


def main(arguments: list[str]) -> int:
    """Write the file and print the commands that use it; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep init", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="of the sweep: letters, digits and _ . -")
    parser.add_argument(
        "--config-dir",
        type=Path,
        metavar="DIR",
        help="a folder laid out as conf/ (default: conf/ here, where sweeps are found by name)",
    )
    parsed = parser.parse_args(arguments)
    name = check_name(parsed.name)
    folder = parsed.config_dir or own_conf_dir()
    path = folder / "sweep" / f"{name}.yaml"
    if path.exists() or name in group_options()["sweep"]:
        raise ConfigError(f"there is a sweep {name!r} already: choose another name, or edit {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, TEMPLATE.format(name=name))
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    where = f" --config-dir {shlex.quote(str(folder))}" if parsed.config_dir else ""
    print(f"{path}: edit it, or run it as it is:")
    print(f"  python -m duqsweep{where} +sweep={name}")
    return 0
