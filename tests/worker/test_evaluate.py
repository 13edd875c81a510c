"""A trial through the real policy, the real quantizer and the real simulator."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from shallow_policy import SIZES
from worker_parts import EXPERT_W4A8, make_trial

from duqsweep import files
from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.control.explain.cost import call_costs
from duqsweep.result import EpisodeRecord, TrialResult, Vitals
from duqsweep.seams import EagerPolicy, Observation, PendingActions, Policy
from duqsweep.spec import LayerRule, PolicySpec, QuantSpec, TrialSpec
from duqsweep.worker.evaluate import WorkerCache, evaluate
from duqsweep.worker.ledger import read_ledger

EVALUATE = """
import sys
from pathlib import Path
from duqsweep.worker.evaluate import WorkerCache, evaluate
evaluate(Path(sys.argv[1]), int(sys.argv[2]), WorkerCache(simulators=2))
"""


@pytest.fixture(scope="module")
def bench() -> Iterator[WorkerCache]:
    bench = WorkerCache()
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sweep for all, so that observations and packs are made once."""
    return tmp_path_factory.mktemp("sweep")


def no_load(spec: PolicySpec, device: str) -> Policy:
    pytest.fail("nothing needs to be loaded")


def episodes(trial_dir: Path) -> list[EpisodeRecord]:
    lines = files.read_lines(trial_dir / files.EPISODES_JSONL)
    return [EpisodeRecord.from_json(line) for line in lines]


def untimed(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    return [dataclasses.replace(r, policy_s=0.0, sim_s=0.0, wall_s=0.0) for r in records]


def vitals_of(trial_dir: Path) -> Vitals:
    return Vitals.from_json(files.read_json(trial_dir / files.VITALS_JSON))


def quantized(spec: TrialSpec, quant: QuantSpec = EXPERT_W4A8) -> TrialSpec:
    return dataclasses.replace(spec, quant=quant)


def test_a_trial_writes_vitals_episodes_and_result(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache
) -> None:
    trial_dir = make_trial(sweep_dir, quantized(trial_spec))
    result = evaluate(trial_dir, 3, bench)
    vitals = vitals_of(trial_dir)
    expert = [name for name in linear_layers(SIZES) if "gemma_expert" in name]
    assert vitals.bits == dict.fromkeys(expert, (4, 8))
    assert (vitals.layers_quantized, vitals.mean_weight_bits) == (len(expert), 4.0)
    assert vitals.kernel == "fake"
    assert vitals.modelled["expert_forwards_per_call"] == 2
    reads = (vitals.modelled["pictures_per_call"], vitals.modelled["prompt_tokens_per_call"])
    assert reads == (2, 27)  # sixteen words, filled up, and eleven values of the state
    costs = call_costs("embedded", SIZES, 2, EXPERT_W4A8, reads)  # of `explain`
    for key, summed in (("flops", "flops_per_call"), ("packed_bytes", "bytes_per_call")):
        assert vitals.modelled[summed] == sum(getattr(cost, key) for cost in costs)
    assert vitals.parts_ms.keys() == {"vision", "llm", "dit"}
    assert vitals.stages_ms is not None
    assert vitals.stages_ms.keys() == {"rotations", "rounding"}
    assert min(vitals.stages_ms.values()) > 0
    assert vitals.compile_s == 0.0
    assert vitals.action_error > 0
    assert vitals.speedup == vitals.reference_call_ms / vitals.call_ms.p50
    ledger = read_ledger(sweep_dir / files.LEDGER_JSON)
    walked = [(record.i, record.task, record.init_state) for record in episodes(trial_dir)]
    assert walked == [(entry.i, entry.task, entry.init_state) for entry in ledger[:3]]
    assert all(record.error is None for record in episodes(trial_dir))
    assert TrialResult.from_json(files.read_json(trial_dir / files.RESULT_JSON)) == result
    assert (result.outcome, result.episodes, result.errors) == ("complete", 3, 0)


def test_a_trial_goes_on_where_it_ended_and_keeps_its_vitals(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache
) -> None:
    trial_dir = make_trial(sweep_dir, trial_spec)
    evaluate(trial_dir, 0, bench)
    written = (trial_dir / files.VITALS_JSON).read_bytes()
    assert evaluate(trial_dir, 1, bench).episodes == 1
    first = (trial_dir / files.EPISODES_JSONL).read_bytes()
    assert evaluate(trial_dir, 3, bench).episodes == 3
    assert (trial_dir / files.EPISODES_JSONL).read_bytes().startswith(first)
    assert (trial_dir / files.VITALS_JSON).read_bytes() == written


def test_a_trial_that_is_already_there_loads_nothing(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache
) -> None:
    trial_dir = make_trial(sweep_dir, trial_spec)
    result = evaluate(trial_dir, 1, bench)
    assert evaluate(trial_dir, 1, WorkerCache(load=no_load)) == result
    (trial_dir / files.RESULT_JSON).unlink()  # killed before it was written
    assert evaluate(trial_dir, 1, WorkerCache(load=no_load)) == result


class Playing:
    """Acts as an eager policy does; is not timed."""

    calls_at_once = 1

    def __init__(self, policy: EagerPolicy) -> None:
        self.policy, self.begun = policy, 0
        self.horizon, self.action_dim = policy.horizon, policy.action_dim

    def begin(self, observation: Observation, noise: NDArray[np.float32]) -> PendingActions:
        self.begun += 1
        return self.policy.begin(observation, noise)


def test_episodes_of_an_eager_policy_are_played_by_its_replay_which_is_not_timed(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Playing] = []

    def replayed(policy: EagerPolicy) -> Playing:
        made.append(Playing(policy))
        return made[-1]

    monkeypatch.setattr("duqsweep.worker.prepare.replayed", replayed)
    spec = quantized(trial_spec, dataclasses.replace(EXPERT_W4A8, block_size=32))
    trial_dir = make_trial(sweep_dir, spec)
    evaluate(trial_dir, 0, bench)  # vitals alone
    (playing,) = made
    assert playing.begun == 0
    evaluate(trial_dir, 2, bench)
    assert playing.begun == sum(record.calls for record in episodes(trial_dir)) > 0
    compiled = dataclasses.replace(spec, runtime=dataclasses.replace(spec.runtime, compile=True))
    evaluate(make_trial(sweep_dir, compiled), 0, bench)
    assert made == [playing]


def test_sixteen_bits_are_the_reference_exactly(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache
) -> None:
    full = QuantSpec(rules=(LayerRule(".*", weight_bits=16, act_bits=16),))
    policy = dataclasses.replace(trial_spec.policy, num_steps=10)
    spec = dataclasses.replace(trial_spec, quant=full, policy=policy)
    trial_dir = make_trial(sweep_dir, spec)
    evaluate(trial_dir, 0, bench)
    vitals = vitals_of(trial_dir)
    assert (vitals.action_error, vitals.kernel, vitals.bits) == (0.0, "none", {})
    assert vitals.stages_ms == {}


def test_sweeps_with_other_seeds_are_calibrated_alike_and_measure_the_same_error(
    sweep_dir: Path, trial_spec: TrialSpec
) -> None:
    quant = dataclasses.replace(EXPERT_W4A8, act_scale="static")  # scales are of the calibration

    def error(seed: int) -> float:
        suite = dataclasses.replace(trial_spec.suite, seed=seed)
        spec = dataclasses.replace(quantized(trial_spec, quant), suite=suite)
        trial_dir = make_trial(sweep_dir, spec)
        with closing(WorkerCache()) as bench:
            evaluate(trial_dir, 0, bench)
        return vitals_of(trial_dir).action_error

    assert error(7) == error(0) > 0


def test_fewer_bits_and_fewer_steps_lie_farther_from_the_reference(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache
) -> None:
    def error(bits: int, num_steps: int) -> float:
        rule = LayerRule("gemma_expert", weight_bits=bits, act_bits=bits)
        policy = dataclasses.replace(trial_spec.policy, num_steps=num_steps)
        spec = dataclasses.replace(quantized(trial_spec, QuantSpec(rules=(rule,))), policy=policy)
        trial_dir = make_trial(sweep_dir, spec)
        evaluate(trial_dir, 0, bench)
        return vitals_of(trial_dir).action_error

    eight_bits = error(8, 10)
    assert eight_bits < error(2, 10)
    assert eight_bits < error(8, 2)


def simulators_of(pid: int) -> list[int]:
    """The processes of its simulators: forks of their template."""
    (template,) = [one for one in children(pid) if b"simulator_template" in command_line(one)]
    return children(template)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.fault(
    "evaluation killed within an episode", "the torn line is cut, the episode is played"
)
@pytest.mark.slow
def test_several_simulators_and_kills_change_no_number(
    sweep_dir: Path, trial_spec: TrialSpec, bench: WorkerCache
) -> None:
    """One simulator plays a trial; two play it again, one is killed, then everything."""
    spec = quantized(trial_spec)
    whole = make_trial(sweep_dir, spec)
    evaluate(whole, 8, bench)
    killed = make_trial(sweep_dir, spec)
    with subprocess.Popen([sys.executable, "-c", EVALUATE, str(killed), "8"]) as process:
        wait_for(lambda: len(episodes(killed)) >= 1)
        first, second = simulators_of(process.pid)
        assert "libtorch" not in Path(f"/proc/{first}/maps").read_text()
        os.kill(second, signal.SIGKILL)
        wait_for(lambda: any(record.error for record in episodes(killed)))
        wait_for(lambda: len(episodes(killed)) >= 4)
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: not command_line(first))
    assert not command_line(first)
    before = (killed / files.EPISODES_JSONL).read_bytes()
    broken = [record for record in episodes(killed) if record.error is not None]
    assert [record.error for record in broken] == [
        "InfrastructureError: the simulator's process was killed by SIGKILL"
    ]
    assert 4 <= len(episodes(killed)) < 9
    result = evaluate(killed, 8, bench)
    assert (result.outcome, result.errors) == ("complete", 0)
    assert (killed / files.EPISODES_JSONL).read_bytes().startswith(before)
    played = [record for record in episodes(killed) if record.error is None]
    assert sorted(record.i for record in played) == list(range(8))
    again = broken[0].i
    assert {record.i for record in played if record.attempt} == {again}
    ordered = sorted(played, key=lambda record: record.i)
    unnumbered = [dataclasses.replace(record, attempt=0) for record in untimed(ordered)]
    assert unnumbered == untimed(episodes(whole))
