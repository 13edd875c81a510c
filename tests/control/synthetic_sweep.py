"""A sweep's folder as a real sweep leaves it, with invented but realistic numbers."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from pathlib import Path

from duqsweep import files
from duqsweep.control.front.objectives import Objective
from duqsweep.control.sweep_format import FORMAT, FORMAT_KEY
from duqsweep.control.trials.reader import read_trials
from duqsweep.control.trials.reference import ensure_reference
from duqsweep.fingerprint import fingerprint
from duqsweep.result import EpisodeRecord, LatencyStats, TrialResult, Vitals
from duqsweep.spec import (
    LayerRule,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
    Trial,
    TrialSpec,
)

OBJECTIVES = (Objective("success_rate", "maximize"), Objective("episode_time_s", "minimize"))
SUITE = SuiteSpec(
    name="duq_mini",
    tasks=6,
    init_states=50,
    image_px=64,
    max_steps=200,
    nominal_steps=90,
    settle_steps=5,
    replan_steps=5,
)
EPOCH_S = 1_700_000_000
REFERENCE_MS = 41.0
LAYERS = [f"paligemma_with_expert.gemma_expert.model.layers.{i}.mlp.up_proj" for i in range(6)]

PLANS = ["reference", "seed_current", "plan_a", "plan_b", "plan_c", "plan_d", "llm_only"]


def make_trial(
    number: int, bits: int = 4, steps: int = 10, name: str | None = None, **quant
) -> Trial:
    rules = (LayerRule(r"gemma_expert.*mlp", bits, 8),) if bits < 16 else ()
    spec = TrialSpec(
        PolicySpec("embedded", num_steps=steps),
        QuantSpec(rules=rules, **quant),
        RuntimeSpec(compile=name in ("plan_a", "plan_b", "plan_c")),
        SUITE,
    )
    params: dict[str, bool | int | float | str] = {
        "quant.include": "dit_mlp",
        "quant.weight_bits.default": bits,
        "policy.num_steps": steps,
        "runtime.compile": spec.runtime.compile,
    }
    if spec.quant.rotation != "none":
        params["quant.block_size"] = spec.quant.block_size
    layer_bits = {layer: (bits, 8) for layer in LAYERS} if bits < 16 else {}
    return Trial(number, name, params, fingerprint(spec, layer_bits), spec)


def make_vitals(trial: Trial, speedup: float, noise: float = 0.0) -> Vitals:
    bits = trial.spec.quant.rules[0].weight_bits if trial.spec.quant.rules else 16
    own_node_ms = REFERENCE_MS * (1 + noise)  # nodes differ, ratios do not
    call_ms = own_node_ms / speedup
    stages = {"rotations": 1.75, "rounding": 1.25}
    return Vitals(
        layers_quantized=6 if bits < 16 else 0,
        bits={layer: (bits, 8) for layer in LAYERS} if bits < 16 else {},
        mean_weight_bits=round(16 - 0.8 * (16 - bits), 3),
        weights_mb=round(3.1 + 0.7 * bits, 3),
        modelled={"expert_forwards_per_call": float(trial.spec.policy.num_steps)},
        call_ms=LatencyStats(call_ms, call_ms * 1.12, 40),
        parts_ms={"vision": 2.1, "llm": 3.2, "dit": call_ms - 5.3},
        stages_ms=None if trial.spec.runtime.compile else stages if bits < 16 else {},
        reference_call_ms=own_node_ms,
        speedup=speedup,
        compile_s=8.4 if trial.spec.runtime.compile else 0.0,
        action_error=round(0.6 / bits**1.5, 5) if bits < 16 else 0.0,
        kernel=trial.spec.quant.kernel if bits < 16 else "none",
        hardware={"cpu": "AMD EPYC 7V12", "cores": 2, "device": "cpu"},
        versions={"duqsweep": "0.1.0", "torch": "2.13.0"},
        git="0123456789ab",
    )


def make_episodes(number: int, count: int, rate: float) -> list[EpisodeRecord]:
    """`count` episodes; the difficulty of each initial state is the same for all trials."""
    shared, own = random.Random(7), random.Random(number)
    records = []
    for i in range(count):
        hard, luck, mine = shared.random(), own.random(), own.random() < 0.5
        success = (luck if mine else hard) < rate
        steps = 60 + own.randrange(70) if success else SUITE.max_steps
        calls = -(-steps // SUITE.replan_steps)
        times = {"policy_s": calls * 0.04, "sim_s": steps * 0.022, "wall_s": steps * 0.03}
        state = shared.randrange(25)
        records.append(
            EpisodeRecord(i, "duq_mini", i % 6, state, 7, success, steps, calls, **times)
        )
    return records


def write_trial(
    sweep_dir: Path,
    trial: Trial,
    vitals: Vitals | None = None,
    episodes: list[EpisodeRecord] | None = None,
    result: TrialResult | None = None,
) -> None:
    """Write a trial's files, stamped as if trials had started a minute apart."""
    folder = files.trial_dir(sweep_dir, trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    started = EPOCH_S + 60 * trial.number
    contents = [(files.SPEC_JSON, trial, 0), (files.VITALS_JSON, vitals, 20)]
    for name, record, delay_s in [*contents, (files.RESULT_JSON, result, 200)]:
        if record is not None:
            files.write_json(folder / name, record.to_json())
            os.utime(folder / name, (started + delay_s, started + delay_s))
    lines = "".join(f"{json.dumps(record.to_json())}\n" for record in episodes or [])
    if lines:
        files.write_text(folder / files.EPISODES_JSONL, lines)


def make_result(episodes: list[EpisodeRecord]) -> TrialResult:
    ran = [record for record in episodes if record.error is None]
    successes = sum(record.success for record in ran)
    return TrialResult(
        outcome="complete",
        reason=f"walked {len(episodes)} episodes",
        episodes=len(episodes),
        successes=successes,
        errors=len(episodes) - len(ran),
        success_rate=successes / len(ran) if ran else None,
    )


def write_complete(sweep_dir: Path, trial: Trial, speedup: float, rate: float, count: int) -> None:
    vitals = make_vitals(trial, speedup, noise=0.1 * (trial.number % 3))
    episodes = make_episodes(trial.number, count, rate)
    write_trial(sweep_dir, trial, vitals, episodes, make_result(episodes))


def write_sweep(
    sweep_dir: Path, trials: int = 32, episodes: int = 60, running: bool = True
) -> Path:
    """A `dit_speed`: the seed's plans, searched trials, one crashed, one ruled out, one running."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    files.write_json(sweep_dir / files.IDENTITY_JSON, {FORMAT_KEY: FORMAT})
    (sweep_dir / files.SWEEP_YAML).write_text(
        "name: dit_speed\nspace:\n  quant.weight_bits.default: choice(2, 3, 4, 8)\n"
        "  quant.block_size: choice(16, 32, 64)\n  policy.num_steps: int(interval(1, 10))\n"
        "when:\n  quant.block_size: quant.rotation != none\n"
        "policy:\n  name: embedded\nsuite:\n  name: duq_mini\nsampler:\n  name: tpe\n"
        f"budget:\n  trials: {trials}\n  episodes_per_trial: {episodes}\n"
    )
    speedups = [1.0, 0.04, 0.62, 0.7, 0.95, 0.8, 0.9]
    rates = [0.97, 0.95, 0.95, 0.94, 0.95, 0.8, 0.96]
    for number, plan in enumerate(PLANS):
        bits = 16 if plan == "reference" else 4
        kernel = {"kernel": "loop"} if plan == "seed_current" else {}
        trial = make_trial(number, bits, 10, plan, **kernel)
        write_complete(sweep_dir, trial, speedups[number], rates[number], episodes)
    draw = random.Random(3)
    for number in range(len(PLANS), trials - 3):
        bits, steps = draw.choice([2, 3, 4, 8]), draw.randint(1, 10)
        block = draw.choice([16, 32, 64])
        rate = {2: 0.3, 3: 0.8, 4: 0.92, 8: 0.97}[bits] - {1: 0.45, 2: 0.2, 3: 0.08}.get(steps, 0)
        speedup = 1 / (0.18 + 0.1 * steps + 0.4 / block)
        trial = make_trial(number, bits, steps, block_size=block)
        write_complete(sweep_dir, trial, speedup, rate, episodes)
    crashed = make_trial(trials - 3, 8, 7, block_size=64)
    why = TrialResult("failed", "block_size 64 does not fit", 0, 0, 0, None, "EvaluationError", "")
    write_trial(sweep_dir, crashed, result=dataclasses.replace(why, traceback="Traceback …"))
    slow = make_trial(trials - 2, 8, 10, block_size=128)
    reason = "its time alone rules it out"
    ruled_out = TrialResult("stopped", reason, 0, 0, 0, None)
    write_trial(sweep_dir, slow, make_vitals(slow, 0.5), result=ruled_out)
    if running:
        last = make_trial(trials - 1, 8, 5)
        write_trial(sweep_dir, last, make_vitals(last, 1.5), make_episodes(trials - 1, 17, 0.95))
    ensure_reference(sweep_dir, read_trials(sweep_dir))
    return sweep_dir
