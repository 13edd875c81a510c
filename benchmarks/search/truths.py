"""Ground truths: what success and time every point of a space really has.

Nothing here is a policy. Each truth is a function of a point, made so that one difficulty of real
sweeps is in it: sensitive layers, interactions, crashes, noisy clocks, tasks that fail together.
Two of them are fitted to measured tables. An episode is a coin toss per initial state; 60 % of the
variance of its latent difficulty belongs to the state, so that trials on the same states agree.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from duqsweep.control.config.grammar import parse_domain
from duqsweep.control.config.parameters import Parameter, Params

Floats = NDArray[np.float64]

LAYERS = 18
TASKS, STATES_PER_TASK = 10, 50
STATE_VARIANCE = 0.6  # of the latent difficulty, whose variance is 1
UNQUANTIZED_S = 3.5  # policy time of an episode, ten steps
SLACK = 1.5  # times slower than unquantized: the corner of the hypervolume
BLOCK = {16: 1.10, 32: 1.0, 64: 0.95}  # damage of block sizes
INCLUDE_LAYER_TIME = {"all": 1.0, "mlp": 0.57, "attn": 0.43}  # share of a layer that is quantized


@dataclass(frozen=True)
class Truth:
    """A space and what its points are."""

    name: str
    parameters: tuple[Parameter, ...]
    skill: float  # latent; the unquantized policy succeeds with Φ(skill)
    damage: Callable[[Sequence[Params]], Floats]  # latent, per point and task (n, tasks)
    time_s: Callable[[Sequence[Params]], Floats]  # policy time of an episode (n,)
    crashes: Callable[[Params], bool] = lambda _point: False
    time_noise: float = 0.02  # relative standard deviation of a benchmark
    tasks: int = TASKS
    states_per_task: int = STATES_PER_TASK
    starts: tuple[Params, ...] = ()  # points that a user would enqueue
    _difficulty: Floats = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        shape = (self.tasks, self.states_per_task)
        difficulty = math.sqrt(STATE_VARIANCE) * rng.standard_normal(shape)
        object.__setattr__(self, "_difficulty", difficulty - difficulty.mean(axis=1, keepdims=True))

    @property
    def states(self) -> int:
        """Initial states of all tasks."""
        return self.tasks * self.states_per_task

    @property
    def corner(self) -> float:
        """The worst log time that counts."""
        return math.log(SLACK * UNQUANTIZED_S)

    def probabilities(self, points: Sequence[Params]) -> Floats:
        """Chance of success in every state, in the order of a task-balanced ledger (n, states)."""
        latent = self.skill - self.damage(points)[:, :, None] - self._difficulty[None]
        chances = ndtr(latent / math.sqrt(1 - STATE_VARIANCE))  # (n, tasks, states)
        crashed = np.array([self.crashes(point) for point in points])
        chances[crashed] = 0.0
        ordered: Floats = chances.transpose(0, 2, 1).reshape(len(points), -1)
        return ordered

    def rate(self, points: Sequence[Params]) -> Floats:
        """True success rate (n,)."""
        found: Floats = self.probabilities(points).mean(axis=1)
        return found


def _parameter(key: str, domain: str) -> Parameter:
    return Parameter(key, parse_domain(key, domain))


def _layered_space() -> tuple[Parameter, ...]:
    shared = {
        "quant.block_size": "choice(16, 32, 64)",
        "quant.include": "choice(all, mlp, attn)",
        "quant.rotation": "choice(hadamard, none)",
        "quant.act_bits": "choice(8, 16)",
        "policy.num_steps": "int(interval(2, 10))",
    }
    layers = {f"quant.weight_bits.layers.{i}": "choice(4, 8, 16)" for i in range(LAYERS)}
    return tuple(_parameter(key, domain) for key, domain in {**shared, **layers}.items())


def _bits(points: Sequence[Params]) -> Floats:
    """Weight bits of all layers (n, LAYERS)."""
    keys = [f"quant.weight_bits.layers.{i}" for i in range(LAYERS)]
    return np.array([[float(point[key]) for key in keys] for point in points])


def _column(points: Sequence[Params], key: str, values: Mapping[object, float]) -> Floats:
    return np.array([values[point[key]] for point in points])


def _steps(points: Sequence[Params]) -> Floats:
    return np.array([float(point["policy.num_steps"]) for point in points])


def _layered_time(points: Sequence[Params]) -> Floats:
    """Prefix and images cost a fixed time; a step costs by the bits that its layers read."""
    factor = np.select([_bits(points) == 4, _bits(points) == 8], [0.55, 0.72], 1.0)
    share = _column(points, "quant.include", INCLUDE_LAYER_TIME)[:, None]
    layers = (share * factor + (1 - share)).mean(axis=1)
    rotation = _column(points, "quant.rotation", {"hadamard": 1.04, "none": 1.0})
    wide = _column(points, "quant.act_bits", {8: 1.0, 16: 1.12})
    return 0.75 + (UNQUANTIZED_S - 0.75) / 10 * _steps(points) * layers * rotation * wide


def _layered_starts() -> tuple[Params, ...]:
    """The unquantized policy, and four bits everywhere or in all but the first and last layers."""
    shared: Params = {
        "quant.block_size": 32,
        "quant.include": "all",
        "quant.rotation": "hadamard",
        "quant.act_bits": 8,
    }

    def point(bits: Callable[[int], int], steps: int) -> Params:
        layers = {f"quant.weight_bits.layers.{i}": bits(i) for i in range(LAYERS)}
        return {**shared, "policy.num_steps": steps, **layers}

    def ends(i: int) -> int:
        return 16 if i in (0, LAYERS - 1) else 4

    return (
        point(lambda _i: 16, 10),
        point(lambda _i: 16, 4),
        point(lambda _i: 4, 10),
        point(ends, 5),
        point(ends, 3),
    )


def layered(
    name: str,
    seed: int,
    total: float,
    step_cost: float,
    *,
    middle: bool = False,
    pairs: float = 0.0,
    rough: float = 0.0,
    crash: float = 0.0,
    by_task: float = 0.0,
    time_noise: float = 0.02,
) -> Truth:
    """A truth over 18 layers with bits of their own.

    Args:
        name: Of the truth.
        seed: Draws the sensitivities of the layers.
        total: Latent damage of four bits in all layers, block 32, rotated.
        step_cost: Latent damage of two denoising steps.
        middle: The middle layers are the sensitive ones, not the first and last.
        pairs: Damage added when neighbours both have four bits, and when few steps meet few bits.
        rough: Standard deviation of a damage that belongs to the point alone.
        crash: Share of the points that cannot be evaluated.
        by_task: How differently tasks suffer: standard deviation of a factor per task.
        time_noise: Relative standard deviation of a measured time.
    """
    rng = np.random.default_rng(seed)
    place = np.abs(np.arange(LAYERS) - (LAYERS - 1) / 2) / ((LAYERS - 1) / 2)
    weights = np.exp(1.5 * (1 - place if middle else place) + 0.6 * rng.standard_normal(LAYERS))
    weights /= weights.sum()
    factors = np.exp(by_task * rng.standard_normal(TASKS))
    factors /= factors.mean()
    starts = _layered_starts()

    def damage(points: Sequence[Params]) -> Floats:
        bits = _bits(points)
        low = np.select([bits == 4, bits == 8], [1.0, 0.06], 0.0)
        setting = (
            _column(points, "quant.rotation", {"hadamard": 1.0, "none": 2.2})
            * _column(points, "quant.block_size", BLOCK)
            * _column(points, "quant.include", {"all": 1.0, "mlp": 0.65, "attn": 0.4})
            * _column(points, "quant.act_bits", {8: 1.0, 16: 0.8})
        )
        few = (10 / _steps(points) - 1) / 4  # 0 at ten steps, 1 at two
        found = total * setting * (low @ weights) + step_cost * few**1.5
        if pairs:
            neighbours = (low[:, 1:] == 1) & (low[:, :-1] == 1)
            found += pairs * setting * (neighbours @ weights[1:]) + pairs * few * (low @ weights)
        if rough:
            found += rough * np.array([_hashed(point, seed) for point in points])
        return np.maximum(found, 0.0)[:, None] * factors

    return Truth(
        name,
        _layered_space(),
        float(ndtri(0.965)),
        damage,
        _layered_time,
        crashes=lambda point: ndtr(_hashed(point, seed + 1)) < crash and point not in starts,
        time_noise=time_noise,
        starts=starts,
    )


def _hashed(point: Params, seed: int) -> float:
    """A standard normal number that belongs to the point."""
    text = json.dumps([seed, sorted(point.items())]).encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")
    return float(ndtri((number + 0.5) / 2**48))


# Success of pi0.5 with the action head's layers at four bits, 200 episodes each (VLAQuantBench).
REVERSED = {
    "none": 87.5,
    "attention": 84.5,
    "adarms": 68.5,
    "attention_adarms": 15.0,
    "gate": 81.0,
    "up": 85.0,
    "down": 24.5,
    "mlp": 27.5,
    "mlp_adarms": 21.5,
    "down_attention": 18.0,
    "down_attention_adarms": 12.0,
    "all_but_adarms": 32.0,
    "everything": 49.5,
}
REVERSED_LAYERS = dict(
    zip(REVERSED, (0, 72, 36, 108, 18, 18, 18, 54, 90, 90, 126, 131, 167), strict=True)
)


def reversed_table() -> Truth:
    """The measured table in which more quantized layers lose less; bits and steps are ours."""
    kinds = ("attention", "adarms", "gate", "up", "down")
    members = {
        "none": (),
        "attention": ("attention",),
        "adarms": ("adarms",),
        "attention_adarms": ("attention", "adarms"),
        "gate": ("gate",),
        "up": ("up",),
        "down": ("down",),
        "mlp": ("gate", "up", "down"),
        "mlp_adarms": ("gate", "up", "down", "adarms"),
        "down_attention": ("down", "attention"),
        "down_attention_adarms": ("down", "attention", "adarms"),
        "all_but_adarms": ("attention", "gate", "up", "down"),
        "everything": kinds,
    }
    skill = float(ndtri(REVERSED["none"] / 100))
    measured = {frozenset(members[n]): skill - float(ndtri(REVERSED[n] / 100)) for n in REVERSED}
    single = {kind: measured[frozenset([kind])] for kind in kinds}

    def at_four_bits(chosen: frozenset[str]) -> float:
        """The table where it has a row, else 1.3 times the sum of the single damages."""
        return measured.get(chosen, 1.3 * sum(single[kind] for kind in chosen))

    parameters = (
        *(_parameter(f"quant.{kind}", "choice(true, false)") for kind in kinds),
        _parameter("quant.weight_bits.default", "choice(4, 6, 8)"),
        _parameter("quant.act_bits", "choice(4, 8)"),
        _parameter("policy.num_steps", "int(interval(1, 10))"),
    )
    bits_factor = {4: 1.0, 6: 0.25, 8: 0.05}

    def damage(points: Sequence[Params]) -> Floats:
        chosen = [frozenset(k for k in kinds if point[f"quant.{k}"]) for point in points]
        found = np.array([at_four_bits(kind) for kind in chosen])
        found *= _column(points, "quant.weight_bits.default", bits_factor)
        found *= _column(points, "quant.act_bits", {4: 1.0, 8: 0.6})
        return np.repeat(found[:, None], TASKS, axis=1)

    share = {"attention": 0.30, "adarms": 0.14, "gate": 0.18, "up": 0.18, "down": 0.20}

    def time_s(points: Sequence[Params]) -> Floats:
        shares = [sum(share[k] for k in kinds if point[f"quant.{k}"]) for point in points]
        saved = np.array(shares, dtype=np.float64)
        saved *= _column(points, "quant.weight_bits.default", {4: 0.45, 6: 0.35, 8: 0.28})
        saved *= _column(points, "quant.act_bits", {4: 1.1, 8: 1.0})
        return 0.75 + (UNQUANTIZED_S - 0.75) / 10 * _steps(points) * (1 - saved)

    def start(bits: int, steps: int, *chosen: str) -> Params:
        flags = {f"quant.{kind}": kind in chosen for kind in kinds}
        rest = {"quant.weight_bits.default": bits, "quant.act_bits": 8, "policy.num_steps": steps}
        return {**flags, **rest}

    starts = (start(8, 10), start(4, 10, *kinds), start(4, 4, "attention"), start(8, 2, *kinds))
    return Truth("reversed", parameters, skill, damage, time_s, starts=starts)


def duq_mini() -> Truth:
    """Fitted to the episodes of the shipped policy: six tasks, bits, place and denoising steps."""
    path = Path(__file__).parent.parent / "results" / "embedded_policy.jsonl"
    wins: dict[tuple[str, int], list[bool]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        episode = json.loads(line)
        if episode["error"] is None:
            wins.setdefault((episode["config"], episode["task"]), []).append(episode["success"])

    def latent(config: str) -> Floats:
        smoothed = [
            (sum(wins[config, task]) + 0.5) / (len(wins[config, task]) + 1) for task in range(6)
        ]
        return ndtri(np.array(smoothed))

    base = latent("fp")
    skill = float(base.mean())
    lost = {
        (bits, where): base - latent(f"w{bits}-{where}")
        for bits in (2, 3, 4, 8)
        for where in ("all", "dit")
    }
    unrotated = base - latent("w3-all-none")
    step_lost = {
        10: 0 * base,
        4: base - latent("s4"),
        2: base - latent("s2"),
        1: base - latent("s1"),
    }
    known_steps = sorted(step_lost)

    def step_damage(steps: float) -> Floats:
        """Between the measured numbers of steps, interpolated by their logarithm."""
        table = np.stack([step_lost[known] for known in known_steps])
        logs = np.log(known_steps)
        return np.array([np.interp(math.log(steps), logs, column) for column in table.T])

    def damage(points: Sequence[Params]) -> Floats:
        rows = []
        for point in points:
            bits, where = int(point["quant.weight_bits.default"]), str(point["quant.include"])
            row = lost[bits, where] * BLOCK[int(point["quant.block_size"])]
            if point["quant.rotation"] == "none":
                row = row + (unrotated - lost[3, "all"]) * {2: 1.0, 3: 1.0, 4: 0.4, 8: 0.05}[bits]
            rows.append(row + step_damage(float(point["policy.num_steps"])) + (skill - base))
        return np.array(rows)

    def time_s(points: Sequence[Params]) -> Floats:
        share = _column(points, "quant.include", {"all": 0.8, "dit": 0.45})
        saved = share * _column(
            points, "quant.weight_bits.default", {2: 0.6, 3: 0.52, 4: 0.45, 8: 0.28}
        )
        rotation = _column(points, "quant.rotation", {"hadamard": 1.04, "none": 1.0})
        blocks = _column(points, "quant.block_size", {16: 1.03, 32: 1.01, 64: 1.0})
        return (
            (0.75 + (UNQUANTIZED_S - 0.75) / 10 * _steps(points)) * (1 - saved) * rotation * blocks
        )

    parameters = (
        _parameter("quant.weight_bits.default", "choice(2, 3, 4, 8)"),
        _parameter("quant.include", "choice(all, dit)"),
        _parameter("quant.rotation", "choice(hadamard, none)"),
        _parameter("quant.block_size", "choice(16, 32, 64)"),
        _parameter("policy.num_steps", "int(interval(1, 10))"),
    )
    shared: Params = {"quant.rotation": "hadamard", "quant.block_size": 16}
    starts = tuple(
        {
            "quant.weight_bits.default": bits,
            "quant.include": where,
            **shared,
            "policy.num_steps": steps,
        }
        for bits, where, steps in ((8, "dit", 10), (4, "all", 10), (4, "dit", 4))
    )
    return Truth("duq_mini", parameters, skill, damage, time_s, tasks=6, starts=starts)


def dev_table(name: str, seed: int, step_cost: float) -> Truth:
    """A random table of which kinds of layers are quantized: some pairs cost more, some less.

    Of the kind of `reversed_table`, with other numbers. `step_cost` is the damage of few steps.
    """
    kinds = ("attention", "adarms", "gate", "up", "down")
    rng = np.random.default_rng(seed)
    single = np.exp(rng.normal(-1.8, 1.2, len(kinds)))
    pairs = np.triu(rng.normal(0.0, 0.5, (len(kinds), len(kinds))), 1)
    sizes = rng.dirichlet(np.full(len(kinds), 6.0))
    parameters = (
        *(_parameter(f"quant.{kind}", "choice(true, false)") for kind in kinds),
        _parameter("quant.weight_bits.default", "choice(3, 4, 8)"),
        _parameter("quant.act_bits", "choice(8, 16)"),
        _parameter("policy.num_steps", "int(interval(1, 10))"),
    )

    def flags(points: Sequence[Params]) -> Floats:
        return np.array([[float(bool(p[f"quant.{kind}"])) for kind in kinds] for p in points])

    def damage(points: Sequence[Params]) -> Floats:
        chosen = flags(points)
        found = np.maximum(chosen @ single + ((chosen @ pairs) * chosen).sum(axis=1), 0.0)
        found *= _column(points, "quant.weight_bits.default", {3: 2.0, 4: 1.0, 8: 0.08})
        found *= _column(points, "quant.act_bits", {8: 1.0, 16: 0.85})
        found += step_cost * (10 / _steps(points) - 1)
        return np.repeat(found[:, None], TASKS, axis=1)

    def time_s(points: Sequence[Params]) -> Floats:
        saved = flags(points) @ sizes
        saved *= _column(points, "quant.weight_bits.default", {3: 0.5, 4: 0.42, 8: 0.25})
        wide = _column(points, "quant.act_bits", {8: 1.0, 16: 1.1})
        return 0.75 + (UNQUANTIZED_S - 0.75) / 10 * _steps(points) * (1 - saved) * wide

    def start(bits: int, steps: int, *chosen: str) -> Params:
        kept = {f"quant.{kind}": kind in chosen for kind in kinds}
        rest = {"quant.weight_bits.default": bits, "quant.act_bits": 8, "policy.num_steps": steps}
        return {**kept, **rest}

    starts = (start(8, 10), start(4, 10, *kinds), start(4, 4, "attention"), start(8, 3, *kinds))
    return Truth(name, parameters, float(ndtri(0.93)), damage, time_s, starts=starts)


def dev_small() -> Truth:
    """A small space of words: each pair of bits and layers suffers by itself, tasks unequally.

    Of the kind of `duq_mini`, with other numbers.
    """
    tasks = 6
    rng = np.random.default_rng(106)
    bits, where = (2, 3, 4, 8), ("all", "mlp", "attn")
    share = {"all": 0.8, "mlp": 0.5, "attn": 0.3}
    typical = {2: 1.4, 3: 0.6, 4: 0.25, 8: 0.03}
    lost = {
        (b, w): typical[b] * share[w] * np.exp(0.6 * rng.standard_normal(tasks))
        for b in bits
        for w in where
    }
    of_steps = np.exp(0.5 * rng.standard_normal(tasks))
    parameters = (
        _parameter("quant.weight_bits.default", "choice(2, 3, 4, 8)"),
        _parameter("quant.include", "choice(all, mlp, attn)"),
        _parameter("quant.rotation", "choice(hadamard, none)"),
        _parameter("quant.block_size", "choice(16, 32, 64)"),
        _parameter("policy.num_steps", "int(interval(1, 10))"),
    )

    def damage(points: Sequence[Params]) -> Floats:
        rows = []
        for point in points:
            row = lost[int(point["quant.weight_bits.default"]), str(point["quant.include"])]
            row = row * BLOCK[int(point["quant.block_size"])]
            row = row * (1.5 if point["quant.rotation"] == "none" else 1.0)
            rows.append(row + 0.05 * (10 / float(point["policy.num_steps"]) - 1) * of_steps)
        return np.array(rows)

    def time_s(points: Sequence[Params]) -> Floats:
        saved = _column(points, "quant.include", share) * _column(
            points, "quant.weight_bits.default", {2: 0.55, 3: 0.5, 4: 0.42, 8: 0.25}
        )
        rotation = _column(points, "quant.rotation", {"hadamard": 1.05, "none": 1.0})
        blocks = _column(points, "quant.block_size", {16: 1.04, 32: 1.01, 64: 1.0})
        scaled = (UNQUANTIZED_S - 0.75) / 10 * _steps(points) * (1 - saved)
        return (0.75 + scaled) * rotation * blocks

    def start(bits: int, where: str, steps: int) -> Params:
        return {
            "quant.weight_bits.default": bits,
            "quant.include": where,
            "quant.rotation": "hadamard",
            "quant.block_size": 16,
            "policy.num_steps": steps,
        }

    starts = (start(8, "attn", 10), start(4, "all", 10), start(4, "attn", 4))
    skill = float(ndtri(0.94))
    return Truth("dev_small", parameters, skill, damage, time_s, tasks=tasks, starts=starts)


# Looked at while the sampler was written. The final table has none of them.
DEVELOPMENT: Mapping[str, Callable[[], Truth]] = {
    "dev_easy": lambda: layered("dev_easy", 101, 0.40, 0.25),
    "dev_hard": lambda: layered("dev_hard", 102, 1.60, 0.35, middle=True, pairs=0.3, crash=0.1),
    "dev_rough": lambda: layered(
        "dev_rough", 103, 0.8, 0.30, middle=True, pairs=0.4, rough=0.12, crash=0.12
    ),
    "dev_noisy": lambda: layered(
        "dev_noisy", 104, 0.9, 0.30, crash=0.06, by_task=0.7, time_noise=0.10
    ),
    "dev_table": lambda: dev_table("dev_table", 105, 0.06),
    "dev_steps": lambda: dev_table("dev_steps", 107, 0.0),
    "dev_small": dev_small,
}
FINAL: Mapping[str, Callable[[], Truth]] = {
    "easy": lambda: layered("easy", 1, 0.41, 0.22),
    "sensitive": lambda: layered("sensitive", 2, 1.65, 0.30),
    "deceptive": lambda: layered(
        "deceptive", 3, 0.9, 0.30, middle=True, pairs=0.45, rough=0.12, crash=0.14
    ),
    "flat": lambda: layered("flat", 4, 0.22, 0.10),
    "noisy": lambda: layered("noisy", 5, 1.0, 0.30, crash=0.05, by_task=0.8, time_noise=0.10),
    "reversed": reversed_table,
    "duq_mini": duq_mini,
}
