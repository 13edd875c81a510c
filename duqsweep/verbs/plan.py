"""`duqsweep plan +sweep=NAME …`: what a sweep would do, without doing it."""

from __future__ import annotations

import argparse
import random
from collections import Counter
from pathlib import Path

from rich.table import Table

from duqsweep.checkpoint.locate import policy_sizes
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.control.config.overrides import check_effect
from duqsweep.control.config.settings import INCLUDE, KERNEL
from duqsweep.control.config.space import GRID_LIMIT, Space
from duqsweep.control.config.sweep_config import SweepConfig, check_inputs, compose
from duqsweep.control.expected import expected
from duqsweep.control.explain.backends import expert_remark
from duqsweep.control.front.formats import duration
from duqsweep.control.view import wording
from duqsweep.control.view.console import open_console
from duqsweep.quant.select import Bits
from duqsweep.spec import FEW_BIT_KERNELS, KERNEL_NEEDS
from duqsweep.verbs.as_job import AS_JOB

DRAWS = 5  # random points shown; a sampler's own depend on what it has seen


def main(arguments: list[str]) -> int:
    """Print the space, what each include reaches, plans and draws, and an estimate; returns 0."""
    parser = argparse.ArgumentParser(prog="duqsweep plan", description=__doc__)
    parser.add_argument("--config-dir", type=Path, help="a folder laid out as conf/")
    parser.add_argument(AS_JOB, action="store_true", help="also the controller's job")
    parsed, overrides = parser.parse_known_args(arguments)
    config = compose(overrides, parsed.config_dir)
    check_inputs(config)
    space = Space.from_config(config)
    check_effect(overrides, space)
    console = open_console()
    console.print(_space_table(config, space))
    console.print(_include_table(space))
    console.print(_trial_table(config, space))
    for line in _remarks(config, space):
        console.print(line, highlight=False)
    if config.launcher.name == "slurm":
        _print_request(config, parsed.as_job)
    return 0


def _print_request(config: SweepConfig, as_job: bool) -> None:
    """What each worker's job, and the controller's if it is one, asks SLURM for."""
    # Imported here: submitit is slow to import.
    from duqsweep.control.dispatch.batch import asks_for_gpus, controller_header, worker_header

    launcher = config.launcher
    print(f"each job, of which launcher.jobs={launcher.jobs} may be there at once, asks for")
    print("\n".join(worker_header(launcher, config.directory)))
    if as_job:
        print("the controller's job asks for")
        print("\n".join(controller_header(launcher, config.directory)))
    if config.base.runtime.device == "cuda" and not asks_for_gpus(launcher):
        print(
            "runtime.device=cuda, and the jobs ask for no GPU: set launcher.gpus_per_node=1 or "
            "launcher.gres=gpu:TYPE:1, unless your partition gives one without being asked"
        )


def _space_table(config: SweepConfig, space: Space) -> Table:
    size = space.size()
    points = f"more than {GRID_LIMIT:,}" if size is None else f"{size:,}"
    plans = wording.counted(len(space.plans), "plan")
    table = Table(title=f"{config.name}: {points} points, {plans}", box=None)
    table.add_column("key")
    table.add_column("values")
    table.add_column("when")
    for key, text in config.space.items():
        table.add_row(key, str(text), config.when.get(key, ""))
    return table


def _include_table(space: Space) -> Table:
    """The layers that each value of quant.include reaches."""
    table = Table(title="what each include reaches", box=None)
    for heading in ("include", "layers", "of the weights", "for example"):
        table.add_column(heading, justify="left" if heading != "layers" else "right")
    values = _values(space, INCLUDE)
    values += [str(plan[INCLUDE]) for plan in space.plans.values() if INCLUDE in plan]
    total = sum(rows * columns for rows, columns in space.base.layers.values())
    for include in dict.fromkeys(values):
        bits = space.bits(space.spec({INCLUDE: include}))
        share = sum(_weights(space, name) for name in bits) / total
        example = next(iter(bits), "").replace("paligemma_with_expert.", "…")
        table.add_row(str(include), str(len(bits)), f"{share:.0%}", example)
    return table


def _values(space: Space, key: str) -> list[str]:
    """What trials may have under a key that takes words, in the space's order."""
    searched = next((p.domain for p in space.parameters if p.key == key), None)
    values = getattr(searched, "values", ()) or (space.base.settings[key],)
    return [str(value) for value in values]


def _weights(space: Space, layer: str) -> int:
    rows, columns = space.base.layers[layer]
    return rows * columns


def _trial_table(config: SweepConfig, space: Space) -> Table:
    table = Table(title="first trials", box=None)
    for heading in ("trial", "layers", "weight bits", "steps", "compile", "block", "kernel"):
        table.add_column(heading)
    rng = random.Random(config.seed)
    drawn = [space.random_point(rng) for _ in range(DRAWS)] if space.parameters else []
    rows = [*space.plans.items(), *(("a random point", point) for point in drawn)]
    for name, params in rows:
        spec = space.spec(params)
        bits = space.bits(spec)
        table.add_row(
            name,
            str(len(bits)),
            _bits_text(bits),
            str(spec.policy.num_steps),
            "yes" if spec.runtime.compile else "no",
            str(spec.quant.block_size) if bits else "",
            spec.quant.kernel if bits else "",
        )
    return table


def _bits_text(bits: dict[str, Bits]) -> str:
    counts = Counter(weight for weight, _ in bits.values())
    return ", ".join(f"{count}×{weight}" for weight, count in sorted(counts.items()))


def _backend_remarks(space: Space, sizes: PolicySizes) -> list[str]:
    """What the expert of each plan runs on, plans of the same remark together."""
    plans: dict[str, list[str]] = {}
    for name, params in space.plans.items():
        spec = space.spec(params)
        remark = expert_remark(spec, space.bits(spec), space.base.layers, sizes)
        if remark is not None:
            plans.setdefault(remark, []).append(name)
    return [f"{', '.join(names)}: {remark}" for remark, names in plans.items()]


def _spending(config: SweepConfig) -> str:
    trials, episodes = config.budget.trials, config.budget.episodes_per_trial
    product = f"{trials} trials × {episodes} episodes = {config.total_episodes} episodes"
    if config.shares_out:
        return f"{product} in all, shared out {config.batch} at a time,"
    return f"at most {product}"


def _time(config: SweepConfig) -> str:
    """How long the sweep takes and how many GPU-hours, with where that is known from."""
    found = expected(config)
    if found is None:
        policy, suite = config.base.policy.name, config.base.suite.name
        return (
            f"time: not known, no trial of {policy} on {suite} was played beside "
            f"{config.directory.parent}; `python -m duqsweep evaluate policy={policy} "
            f"suite={suite}` with your checkpoint measures one"
        )
    workers = wording.counted(found.workers, "worker")
    gpus = f", {found.gpu_hours:.2g} GPU-hours" if found.gpu_hours else ""
    queue = "; waiting in a queue comes on top" if config.launcher.name == "slurm" else ""
    return (
        f"time: at most about {duration(found.time_s)} on {workers}{gpus}, by "
        f"{found.pace.source}: {found.pace.measuring_s:.0f} s to measure a trial, "
        f"{found.pace.episode_s:.2g} s per episode{queue}"
    )


def _remarks(config: SweepConfig, space: Space) -> list[str]:
    trials, episodes = config.budget.trials, config.budget.episodes_per_trial
    suite = config.base.suite
    lines = [
        f"{_spending(config)} of up to "
        f"{suite.max_steps} steps; `python -m duqsweep evaluate` times one trial here"
        if episodes
        else f"at most {trials} trials, each timed and compared with the reference; no episodes",
        _time(config),
    ]
    names = {objective.name for objective in config.objectives}
    keys = {parameter.key for parameter in space.parameters}
    kernels = set(_values(space, KERNEL))
    sizes = policy_sizes(space.base.spec({}).policy)
    searches_bits = any(key.startswith("quant.weight_bits") for key in keys)
    if (
        searches_bits
        and not kernels & set(FEW_BIT_KERNELS)
        and not names & {"weights_mb", "mean_weight_bits", "modelled_time_s"}
    ):
        lines.append(
            f"kernel {' and '.join(sorted(kernels))} is simulated: bits change success and not "
            "time, so fewer bits can only lose here; to trade bits add the objective weights_mb or "
            "modelled_time_s"
        )
    for kernel in sorted(kernels & set(FEW_BIT_KERNELS)):
        lines.append(
            f"kernel {kernel} {KERNEL_NEEDS[kernel]}; where it runs without, its trials fail"
        )
    lines += _backend_remarks(space, sizes)
    if len(names) == 1:
        lines.append("one objective: there is nothing to trade, the front is one point")
    return lines
