"""Fixed observations: reserved, reproducible, shared."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from worker_parts import PaperSimulator

from duqsweep.checkpoint.weights_id import weights_id
from duqsweep.control.config.sweep_config import compose
from duqsweep.envs.assets import RECORDING
from duqsweep.envs.libero import open_environment
from duqsweep.envs.mini.suite import TASKS
from duqsweep.envs.simulator_info import describe_simulator
from duqsweep.policy.load import load_policy
from duqsweep.seams import Observation
from duqsweep.spec import LedgerEntry, PolicySpec, SuiteSpec
from duqsweep.worker.ledger import looked_at, make_ledger
from duqsweep.worker.observations import (
    KEPT_PER_TASK,
    collect,
    fixed_observations,
    is_recorded,
    load_observations,
    recorded_observations,
    save_observations,
    shared_file,
)
from duqsweep.worker.simulator_pool import SimulatorPool


class WatchedSimulator(PaperSimulator):
    """Remembers which episodes it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[LedgerEntry] = []

    def reset(self, entry: LedgerEntry) -> Observation:
        self.entries.append(entry)
        return super().reset(entry)


def paper_pool() -> SimulatorPool:
    return SimulatorPool.in_process(PaperSimulator)


def same(a: Observation, b: Observation) -> bool:
    arrays = all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("eef_pos", "eef_quat", "gripper_qpos")
    )
    images = a.images.keys() == b.images.keys() and all(
        np.array_equal(a.images[camera], b.images[camera]) for camera in a.images
    )
    return arrays and images and a.instruction == b.instruction


@pytest.mark.parametrize("seed", [7, 0, 1000])
def test_observations_come_from_every_task_and_no_searched_state(
    seed: int, checkpoint: Path, suite: SuiteSpec
) -> None:
    suite = replace(suite, seed=seed)
    simulator = WatchedSimulator()
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    assert (
        len(collect(policy, suite, SimulatorPool.in_process(lambda: simulator)))
        == suite.tasks * KEPT_PER_TASK
    )
    assert sorted(entry.task for entry in simulator.entries) == list(range(suite.tasks))
    searched = {(entry.task, entry.init_state) for entry in make_ledger(suite)}
    seen = {(entry.task, entry.init_state) for entry in simulator.entries}
    assert not searched & seen
    reserved = make_ledger(suite, reserved=True)
    assert {(e.task, e.init_state) for e in reserved[-suite.total_tasks :]} == seen


def test_sweeps_with_other_seeds_see_the_same_and_read_it_from_one_file(
    checkpoint: Path, suite: SuiteSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    other, simulator = replace(suite, seed=1000), describe_simulator(suite)
    expected = collect(policy, suite, paper_pool())
    assert all(map(same, expected, collect(policy, other, paper_pool())))
    moved = replace(other, init_states=48)  # what may matter does
    assert not all(map(same, expected, collect(policy, moved, paper_pool())))
    shared = shared_file("id", suite, simulator, "cpu")
    assert shared_file("id", other, simulator, "cpu") == shared
    assert shared_file("id", moved, simulator, "cpu") != shared
    sweeps = [tmp_path / name for name in ("first", "second")]
    for folder in sweeps:
        folder.mkdir()
    first = fixed_observations(policy, "id", suite, paper_pool, sweeps[0], lambda: shared)
    second = fixed_observations(policy, "id", other, no_simulator, sweeps[1], lambda: shared)
    assert second.id == first.id
    assert all(map(same, first.measured, second.measured))


def test_the_second_process_reads_what_the_first_made(
    checkpoint: Path, suite: SuiteSpec, tmp_path: Path
) -> None:
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    shared = tmp_path / "shared"
    first = fixed_observations(policy, "id", suite, paper_pool, tmp_path, lambda: shared)
    shared.unlink()
    second = fixed_observations(policy, "id", suite, no_simulator, tmp_path, not_asked)
    assert len(first.calibration) == len(first.measured) == suite.tasks * KEPT_PER_TASK // 2
    pairs = zip(
        first.calibration + first.measured, second.calibration + second.measured, strict=True
    )
    assert all(same(a, b) for a, b in pairs)
    assert not any(same(a, b) for a in first.calibration for b in first.measured)


def test_there_is_something_to_do_meanwhile_only_where_simulators_play(
    checkpoint: Path, suite: SuiteSpec, tmp_path: Path
) -> None:
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    simulator, resets = WatchedSimulator(), []

    def meanwhile() -> None:
        resets.append(simulator.resets)

    pool = SimulatorPool.in_process(lambda: simulator)
    for _ in range(2):
        fixed_observations(policy, "id", suite, lambda: pool, tmp_path, None, meanwhile)
    assert resets == [0]


def not_asked() -> Path:
    pytest.fail("the sweep has a file of its own")


def no_simulator() -> SimulatorPool:
    pytest.fail("the observations were cached")


def test_another_sweep_reads_what_the_first_made_and_a_damaged_file_is_made_anew(
    checkpoint: Path, suite: SuiteSpec, tmp_path: Path
) -> None:
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    sweeps = [tmp_path / str(number) for number in range(3)]
    for folder in sweeps:
        folder.mkdir()
    shared = tmp_path / "shared.npz"
    first = fixed_observations(policy, "id", suite, paper_pool, sweeps[0], lambda: shared)
    second = fixed_observations(policy, "id", suite, no_simulator, sweeps[1], lambda: shared)
    shared.write_bytes(shared.read_bytes()[:500])
    third = fixed_observations(policy, "id", suite, paper_pool, sweeps[2], lambda: shared)
    for other in (second, third):
        assert all(same(a, b) for a, b in zip(first.measured, other.measured, strict=True))
    assert len(load_observations(shared)) == suite.tasks * KEPT_PER_TASK


def test_those_of_the_shipped_policy_are_shipped(tmp_path: Path) -> None:
    """Where this fails, record them again: examples/embedded_policy/record_observations.py."""
    base = compose(["+sweep=smoke"]).base
    shipped = weights_id(base.policy)
    assert is_recorded(shipped, replace(base.suite, renderer="egl"))
    assert is_recorded(shipped, replace(base.suite, seed=1000))
    assert not is_recorded("another", base.suite)
    assert not is_recorded(shipped, replace(base.suite, image_px=128))
    policy = load_policy(base.policy, "cpu")
    recording = recorded_observations(RECORDING, base.suite.image_px)
    for seed in (base.suite.seed, 0):
        folder, suite = tmp_path / str(seed), replace(base.suite, seed=seed)
        folder.mkdir()
        found = fixed_observations(policy, shipped, suite, no_simulator, folder, not_asked)
        assert all(map(same, found.measured, recording.measured))
        assert all(map(same, found.calibration, recording.calibration))


def test_the_shipped_recording_begins_with_what_the_simulator_shows() -> None:
    suite = replace(compose(["+sweep=smoke"]).base.suite, renderer="osmesa", seed=0)
    entry = looked_at(suite)[0]
    with closing(open_environment(suite)) as environment:
        seen = environment.reset(entry)
    recorded = load_observations(RECORDING)[0]
    assert recorded.instruction == seen.instruction
    assert np.allclose(recorded.eef_pos, seen.eef_pos, atol=1e-6)
    for camera, pixels in seen.images.items():
        difference = np.abs(recorded.images[camera].astype(int) - pixels)
        assert difference.mean() < 1  # of 255: versions of MuJoCo and Mesa shade alike


def test_a_cache_that_cannot_be_written_is_no_failure(
    checkpoint: Path, suite: SuiteSpec, tmp_path: Path
) -> None:
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    nowhere = tmp_path / "no" / "x.npz"
    found = fixed_observations(policy, "id", suite, paper_pool, tmp_path, lambda: nowhere)
    assert len(found.measured) == suite.tasks * KEPT_PER_TASK // 2


def test_the_shared_file_is_of_one_simulator_renderer_and_kind_of_device(
    suite: SuiteSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    drawn = replace(suite, renderer="osmesa")
    simulator = describe_simulator(suite)
    assert simulator is not None
    files = {
        shared_file("id", drawn, simulator, "cpu"),
        shared_file("other", drawn, simulator, "cpu"),
        shared_file("id", replace(suite, renderer="egl"), simulator, "cpu"),
        shared_file("id", drawn, replace(simulator, mujoco="3.3.8"), "cpu"),
        shared_file("id", drawn, simulator, "cuda:0"),
    }
    assert len(files) == 5
    assert shared_file("id", drawn, simulator, "cuda:1") in files
    assert {path.parent for path in files} == {tmp_path / "duqsweep" / "observations"}


def test_another_policy_has_other_observations(
    checkpoint: Path, suite: SuiteSpec, tmp_path: Path
) -> None:
    policy = load_policy(PolicySpec("embedded", str(checkpoint)), "cpu")
    for name in ("one", "two"):
        shared = partial(tmp_path.joinpath, f"{name}.shared")
        fixed_observations(policy, name, suite, paper_pool, tmp_path, shared)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_a_recording_is_read_as_it_was_seen_and_enlarged_pixel_by_pixel(tmp_path: Path) -> None:
    simulator = PaperSimulator()
    simulator.position = 2.0
    seen = simulator.observe()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    seen.images["agentview"] = pixels
    path = tmp_path / "recorded.npz"
    save_observations(path, [seen, simulator.observe(), seen])
    found = recorded_observations(path, 64)
    assert [same(seen, read) for read in found.calibration] == [True, True]
    assert len(found.measured) == 1
    twice = recorded_observations(path, 128)
    image = twice.calibration[0].images["agentview"]
    assert np.array_equal(image, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert twice.id != found.id


def test_the_shipped_recording_holds_every_task() -> None:
    found = recorded_observations(RECORDING, 64)
    instructions = {seen.instruction for seen in found.calibration}
    assert instructions == {task.instruction for task in TASKS}
    assert instructions == {seen.instruction for seen in found.measured}
    assert RECORDING.stat().st_size < 400_000
