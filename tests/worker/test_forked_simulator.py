"""Simulators of a process are forks of one template, whatever becomes of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import threaded_environment
from light_environment import OPENER

from duqsweep.errors import InfrastructureError
from duqsweep.spec import LedgerEntry, SuiteSpec
from duqsweep.worker import forked_simulator
from duqsweep.worker.remote_simulator import RemoteSimulator
from duqsweep.worker.simulator_requests import OPEN_LIBERO, Answer, Reset

LONGEST_S = 60.0  # until a process has gone, on a busy machine


@pytest.fixture
def simulators(suite: SuiteSpec, tmp_path: Path) -> Iterator[list[RemoteSimulator]]:
    light = dataclasses.replace(suite, assets=str(tmp_path), renderer="osmesa")
    pair = [RemoteSimulator(light, OPENER) for _ in range(2)]
    yield pair
    for simulator in pair:
        simulator.close()


def reset(simulator: RemoteSimulator) -> Answer:
    simulator.request(Reset(LedgerEntry(0, "duq_mini", 0, 0, 7)))
    while (answer := simulator.receive()) is None:
        pass
    return answer


def process_of(simulator: RemoteSimulator) -> int:
    assert simulator._process is not None
    while simulator._process.pid is None:
        simulator._process.wait(0.1)
    return simulator._process.pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_all_simulators_and_their_successors_are_forks_of_one_process(
    simulators: list[RemoteSimulator],
) -> None:
    one, other = simulators
    reset(one), reset(other)
    template = parent_of(process_of(one))
    assert parent_of(process_of(other)) == template
    assert parent_of(template) == os.getpid()
    first = process_of(one)
    one.close()
    assert not Path(f"/proc/{first}").exists()
    reset(one)
    assert process_of(one) != first
    assert parent_of(process_of(one)) == template
    reset(other)  # was not disturbed


@pytest.mark.fault(
    "the template that simulators are forked from dies",
    "its simulators end with it, as if each had died; the next episode starts another",
)
def test_a_killed_template_takes_its_simulators_along_and_the_next_request_starts_another(
    simulators: list[RemoteSimulator],
) -> None:
    for simulator in simulators:
        reset(simulator)
    template = parent_of(process_of(simulators[0]))
    os.kill(template, signal.SIGKILL)
    for simulator in simulators:
        assert simulator.connection.poll(LONGEST_S)  # it has gone
        with pytest.raises(InfrastructureError, match="process was killed by SIGKILL"):
            reset(simulator)
        simulator.close()
    assert reset(simulators[0]).observation is not None
    assert parent_of(process_of(simulators[0])) != template


@pytest.mark.fault(
    "the template that simulators are forked from hangs",
    "its simulators are ended as if each had died; the next episode starts another",
)
def test_a_simulator_whose_template_hangs_can_be_ended(
    simulators: list[RemoteSimulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked_simulator, "END_S", 0.2)
    one, other = simulators
    reset(one)
    template = parent_of(process_of(one))
    os.kill(template, signal.SIGSTOP)
    other.open()
    other.give_up("it hangs")
    with pytest.raises(InfrastructureError, match="it hangs"):
        other.receive()
    other.close()
    assert not Path(f"/proc/{template}").exists()
    assert one.connection.poll(LONGEST_S)
    with pytest.raises(InfrastructureError, match="killed by SIGKILL"):
        reset(one)


def test_a_fork_has_the_environment_the_folder_and_the_output_of_its_own_time(
    simulators: list[RemoteSimulator], suite: SuiteSpec, tmp_path: Path, monkeypatch: Any
) -> None:
    reset(simulators[0])  # the template runs from here on
    gone, other = tmp_path / "gone", tmp_path / "other"
    gone.mkdir()
    other.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("LIGHT_FOLDER", str(other))
    light = dataclasses.replace(suite, assets="$LIGHT_FOLDER", renderer="osmesa")
    late, kept = RemoteSimulator(light, OPENER), os.dup(2)
    with (tmp_path / "errors").open("w") as errors:
        os.dup2(errors.fileno(), 2)
        try:
            reset(late)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    process = Path(f"/proc/{process_of(late)}")
    assert os.readlink(process / "cwd") == f"{gone} (deleted)"
    assert os.readlink(process / "fd/2") == str(tmp_path / "errors")
    assert (other / "built").exists()
    late.close()


def test_what_starts_threads_is_loaded_after_forking(
    suite: SuiteSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    light = dataclasses.replace(suite, assets=str(tmp_path), renderer="osmesa")
    simulator = RemoteSimulator(light, threaded_environment.OPENER)
    assert reset(simulator).observation is not None
    template = parent_of(process_of(simulator))
    assert len(list(Path(f"/proc/{template}/task").iterdir())) == 1
    assert len(list(Path(f"/proc/{process_of(simulator)}/task").iterdir())) == 2
    assert "each simulator loads it alone" in capfd.readouterr().err
    simulator.close()


def test_a_template_has_loaded_numba_and_its_fork_reads_no_fine_mesh(suite: SuiteSpec) -> None:
    simulator = RemoteSimulator(dataclasses.replace(suite, renderer="osmesa"))
    assert reset(simulator).observation is not None
    process = process_of(simulator)
    loaded = Path(f"/proc/{parent_of(process)}/maps").read_text()
    assert "libllvmlite" in loaded
    assert "libtorch" not in loaded
    assert bytes_read(process) < bytes_of_the_arm() / 2
    simulator.close()


def test_a_template_has_compiled_the_arm_where_the_suite_draws_it() -> None:
    read = {}
    for suite in ("duq_mini", "libero_spatial"):
        template = forked_simulator.SimulatorTemplate(OPEN_LIBERO, "osmesa", suite)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            forked = template.fork(theirs.fileno(), theirs.fileno())
        template.receive_pids(forked, LONGEST_S)
        assert forked.pid is not None
        read[suite] = bytes_read(parent_of(forked.pid))
        template.end()
    assert read["libero_spatial"] > read["duq_mini"] + bytes_of_the_arm() / 2


def bytes_read(process: int) -> int:
    read = re.search(r"rchar: (\d+)", Path(f"/proc/{process}/io").read_text())
    assert read is not None
    return int(read[1])


def bytes_of_the_arm() -> int:
    return sum(mesh.stat().st_size for mesh in meshes_of_the_arm())


def meshes_of_the_arm() -> list[Path]:
    found = importlib.util.find_spec("robosuite")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "models" / "assets" / "robots" / "panda"
    return [path for path in folder.rglob("*") if path.suffix in (".stl", ".obj", ".msh")]


def test_a_template_has_loaded_no_driver_of_a_gpu() -> None:
    template = forked_simulator.SimulatorTemplate(OPEN_LIBERO, "egl", "duq_mini")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        forked = template.fork(theirs.fileno(), theirs.fileno())
    template.receive_pids(forked, LONGEST_S)
    assert forked.pid is not None
    loaded = Path(f"/proc/{parent_of(forked.pid)}/maps").read_text()
    assert "libllvmlite" in loaded
    assert "mujoco" not in loaded
    assert "libEGL" not in loaded
    assert "libtorch" not in loaded
    assert forked.wait(LONGEST_S) == 0  # nobody is at the other end
    template.end()


def test_a_simulator_draws_in_its_own_thread(suite: SuiteSpec) -> None:
    simulator = RemoteSimulator(dataclasses.replace(suite, renderer="osmesa"))
    assert reset(simulator).observation is not None
    threads = Path(f"/proc/{process_of(simulator)}/task").iterdir()
    names = [(thread / "comm").read_text().strip() for thread in threads]
    assert not [name for name in names if name.startswith("llvmpipe")]
    simulator.close()
