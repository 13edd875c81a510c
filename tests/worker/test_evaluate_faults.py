"""Failing simulators are retried, failing policies are recorded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from worker_parts import PaperPolicy, PaperSimulator, make_trial

from duqsweep import files
from duqsweep.errors import InfrastructureError
from duqsweep.result import TrialResult
from duqsweep.seams import Policy
from duqsweep.spec import LayerRule, PolicySpec, QuantSpec, SuiteSpec, TrialSpec
from duqsweep.worker.evaluate import WorkerCache, evaluate

OBSERVATION_RESETS = 2  # fixed observations take one episode of each of the two tasks


def bench_with(simulator: PaperSimulator, policy: PaperPolicy | None = None) -> WorkerCache:
    def load(spec: PolicySpec, device: str) -> Policy:
        return policy or PaperPolicy(lambda noise: noise.astype(np.float64))

    return WorkerCache(load=load, open_simulator=lambda suite: simulator)


def lines(trial_dir: Path) -> list[dict[str, object]]:
    return files.read_lines(trial_dir / files.EPISODES_JSONL)


@pytest.mark.fault("simulator fails once", "the episode gets a second attempt")
def test_a_simulator_that_fails_once_is_retried(tmp_path: Path, trial_spec: TrialSpec) -> None:
    simulator = PaperSimulator(broken_resets=(OBSERVATION_RESETS + 1,))
    trial_dir = make_trial(tmp_path, trial_spec)
    result = evaluate(trial_dir, 3, bench_with(simulator))
    assert [(line["i"], line["attempt"]) for line in lines(trial_dir)] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
    ]
    assert (result.outcome, result.episodes, result.errors) == ("complete", 3, 0)
    assert simulator.closed == 1


def test_one_episode_that_cannot_run_is_counted_apart(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    start = OBSERVATION_RESETS
    simulator = PaperSimulator(broken_resets=(start, start + 1))
    result = evaluate(make_trial(tmp_path, trial_spec), 3, bench_with(simulator))
    assert (result.outcome, result.episodes, result.errors) == ("complete", 3, 1)
    assert result.success_rate == 0.0


@pytest.mark.fault("simulator keeps failing", "the trial stays open")
def test_a_simulator_that_keeps_failing_leaves_the_trial_open_until_it_is_mended(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    simulator = PaperSimulator(broken_resets=tuple(range(OBSERVATION_RESETS, 100)))
    trial_dir = make_trial(tmp_path, trial_spec)
    with pytest.raises(InfrastructureError, match="2 of 30 episodes ended in errors"):
        evaluate(trial_dir, 30, bench_with(simulator))
    assert len(lines(trial_dir)) == 4
    assert not (trial_dir / files.RESULT_JSON).exists()
    result = evaluate(trial_dir, 30, bench_with(PaperSimulator()))
    assert (result.outcome, result.episodes, result.errors) == ("complete", 30, 0)
    played = [(line["i"], line["attempt"]) for line in lines(trial_dir)[4:]]
    assert played == [(0, 2), (1, 2), *((i, 0) for i in range(2, 30))]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ImportError("libcudart.so.12: cannot open shared object file"),
        RuntimeError("CUDA error: no CUDA-capable device is detected"),
        RuntimeError("The NVIDIA driver on your system is too old"),
    ],
)
def test_what_a_machine_lacks_is_no_fault_of_the_policy(
    tmp_path: Path, trial_spec: TrialSpec, error: Exception
) -> None:
    def load(spec: PolicySpec, device: str) -> Policy:
        raise error

    trial_dir = make_trial(tmp_path, trial_spec)
    with pytest.raises(InfrastructureError, match=type(error).__name__):
        evaluate(trial_dir, 3, WorkerCache(load=load))
    assert not (trial_dir / files.RESULT_JSON).exists()


def test_an_error_whose_retry_was_never_made_is_retried_by_the_next_process(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    trial_dir = make_trial(tmp_path, trial_spec)
    simulator = PaperSimulator(broken_resets=(OBSERVATION_RESETS,))
    evaluate(trial_dir, 1, bench_with(simulator))
    path = trial_dir / files.EPISODES_JSONL
    path.write_text(path.read_text().splitlines(keepends=True)[0])  # killed before the retry
    (trial_dir / files.RESULT_JSON).unlink()
    result = evaluate(trial_dir, 2, bench_with(PaperSimulator()))
    assert [(line["i"], line["attempt"]) for line in lines(trial_dir)] == [(0, 0), (0, 1), (1, 0)]
    assert (result.outcome, result.errors) == ("complete", 0)


def test_episodes_that_ended_out_of_order_are_neither_repeated_nor_left_out(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    trial_dir = make_trial(tmp_path, trial_spec)
    evaluate(trial_dir, 6, bench_with(PaperSimulator()))
    path = trial_dir / files.EPISODES_JSONL
    written = path.read_text().splitlines(keepends=True)
    path.write_text(written[5] + written[0] + written[3])
    (trial_dir / files.RESULT_JSON).unlink()
    result = evaluate(trial_dir, 5, bench_with(PaperSimulator()))
    assert [line["i"] for line in lines(trial_dir)] == [5, 0, 3, 1, 2, 4]
    assert (result.outcome, result.episodes) == ("complete", 6)


@pytest.mark.parametrize("fault", [float("nan"), ValueError("a kernel without this shape")])
def test_a_policy_fault_is_recorded_with_its_traceback_and_not_repeated(
    tmp_path: Path, trial_spec: TrialSpec, fault: float | Exception
) -> None:
    def act(noise: NDArray[np.float32]) -> NDArray[np.float64]:
        if isinstance(fault, Exception):
            raise fault
        return np.full((10, 7), fault)

    policy = PaperPolicy(lambda noise: noise.astype(np.float64), act_of_copies=act)
    trial_dir = make_trial(tmp_path, trial_spec)
    result = evaluate(trial_dir, 3, bench_with(PaperSimulator(), policy))
    assert result.outcome == "failed"
    assert result.error_type == (
        "ValueError" if isinstance(fault, Exception) else "EvaluationError"
    )
    assert "Traceback" in str(result.traceback)
    assert TrialResult.from_json(files.read_json(trial_dir / files.RESULT_JSON)) == result
    assert "failed" in (trial_dir / files.LOG_TXT).read_text()

    def load(spec: PolicySpec, device: str) -> Policy:
        pytest.fail("a failed trial is not tried again")

    assert evaluate(trial_dir, 3, WorkerCache(load=load)) == result


def test_a_simulator_that_never_opens_is_the_machines_fault(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    def open_simulator(suite: SuiteSpec) -> PaperSimulator:
        raise InfrastructureError("no renderer")

    trial_dir = make_trial(tmp_path, trial_spec)
    with pytest.raises(InfrastructureError, match="no renderer"):
        evaluate(trial_dir, 1, WorkerCache(open_simulator=open_simulator))
    assert not (trial_dir / files.RESULT_JSON).exists()


def test_a_damaged_ledger_is_not_the_policys_fault(tmp_path: Path, trial_spec: TrialSpec) -> None:
    trial_dir = make_trial(tmp_path, trial_spec)
    with pytest.raises(InfrastructureError, match="has 50 episodes, asked for are 51"):
        evaluate(trial_dir, 51, bench_with(PaperSimulator()))
    (trial_dir.parent.parent / files.LEDGER_JSON).write_text("[{")
    with pytest.raises(InfrastructureError, match="the sweep's ledger is damaged"):
        evaluate(trial_dir, 2, bench_with(PaperSimulator()))
    assert not (trial_dir / files.RESULT_JSON).exists()


def test_a_rule_without_layers_fails_the_trial(tmp_path: Path, trial_spec: TrialSpec) -> None:
    trial_dir = make_trial(tmp_path, trial_spec)
    spec = files.read_json(trial_dir / files.SPEC_JSON)
    nothing = QuantSpec(rules=(LayerRule("no_such_layer", 4, 8),))
    spec["spec"] = dataclasses.replace(trial_spec, quant=nothing).to_json()
    files.write_json(trial_dir / files.SPEC_JSON, spec)
    result = evaluate(trial_dir, 1, bench_with(PaperSimulator()))
    assert result.error_type == "ConfigError"
    assert "no_such_layer" in result.reason


def test_chunks_longer_than_the_horizon_are_refused(tmp_path: Path, trial_spec: TrialSpec) -> None:
    long_chunks = dataclasses.replace(trial_spec.suite, replan_steps=11)
    spec = dataclasses.replace(trial_spec, suite=long_chunks)
    result = evaluate(make_trial(tmp_path, spec), 1, bench_with(PaperSimulator()))
    assert "horizon of 10" in result.reason


def test_the_stop_file_ends_a_trial_between_episodes_and_its_removal_lets_it_go_on(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    trial_dir = make_trial(tmp_path, trial_spec)

    class StoppingSimulator(PaperSimulator):
        def step(self, action):  # type: ignore[no-untyped-def]
            if self.resets == OBSERVATION_RESETS + 2:
                (trial_dir / files.STOP).touch()
            return super().step(action)

    stopped = evaluate(trial_dir, 5, bench_with(StoppingSimulator()))
    assert (stopped.outcome, stopped.episodes) == ("stopped", 2)
    (trial_dir / files.STOP).unlink()
    assert evaluate(trial_dir, 5, bench_with(PaperSimulator())).outcome == "complete"
    assert [line["i"] for line in lines(trial_dir)] == [0, 1, 2, 3, 4]


def test_a_trial_that_is_stopped_before_it_starts_loads_nothing(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    trial_dir = make_trial(tmp_path, trial_spec)
    (trial_dir / files.STOP).touch()

    def load(spec: PolicySpec, device: str) -> Policy:
        pytest.fail("nothing needs to be loaded")

    result = evaluate(trial_dir, 5, WorkerCache(load=load))
    assert (result.outcome, result.episodes) == ("stopped", 0)


def test_trials_that_differ_in_how_they_are_replanned_share_a_policy(
    tmp_path: Path, trial_spec: TrialSpec
) -> None:
    bench = bench_with(PaperSimulator())

    def trial(replan_steps: int) -> Path:
        suite = dataclasses.replace(trial_spec.suite, replan_steps=replan_steps)
        return make_trial(tmp_path, dataclasses.replace(trial_spec, suite=suite))

    folders = [trial(steps) for steps in (5, 4, 11)]
    results = [evaluate(folder, 1, bench) for folder in folders[:2]]
    assert [result.outcome for result in results] == ["complete", "complete"]
    logs = [(folder / files.LOG_TXT).read_text() for folder in folders[:2]]
    assert ["warm up:" in log for log in logs] == [True, False]
    calls = [lines(folder)[0]["calls"] for folder in folders[:2]]
    steps = trial_spec.suite.max_steps
    assert calls == [-(-steps // 5), -(-steps // 4)]
    refused = evaluate(folders[2], 1, bench)
    assert refused.outcome == "failed"
    assert "replan_steps must not exceed" in refused.reason
