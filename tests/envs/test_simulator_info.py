"""Only simulators that are known to play a suite rightly are taken, and a sweep keeps its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from duqsweep.envs import simulator_info
from duqsweep.envs.libero import open_environment
from duqsweep.envs.simulator_info import KNOWN_GOOD, describe_simulator
from duqsweep.errors import ConfigError, InfrastructureError
from duqsweep.spec import SuiteSpec
from duqsweep.worker.simulator import check_node, check_simulator, write_simulator


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Pretend that other versions are installed."""
    known = simulator_info.metadata.version
    monkeypatch.setattr(
        simulator_info.metadata, "version", lambda name: versions.get(name) or known(name)
    )


def test_the_installed_simulator_is_known_good(suite: SuiteSpec):
    found = describe_simulator(suite)
    assert found is not None
    assert found.mujoco == KNOWN_GOOD["mujoco"][-1]
    assert (found.assets, found.stand_ins) == ("shipped", 0)


@pytest.mark.parametrize(
    ("package", "version"), [("mujoco", "3.4.0"), ("mujoco", "3.8.1"), ("robosuite", "1.5.2")]
)
def test_another_version_is_refused_in_one_line_that_says_what_to_install(
    package: str, version: str, suite: SuiteSpec, monkeypatch: pytest.MonkeyPatch
):
    installed(monkeypatch, **{package: version})
    good = KNOWN_GOOD[package][-1]
    said = f"^{package} {version} is not known to play duq_mini .*pip install {package}=={good}"
    with pytest.raises(ConfigError, match=said):
        describe_simulator(suite)
    with pytest.raises(ConfigError, match=said):
        open_environment(suite)


def test_a_suite_of_recorded_observations_needs_no_simulator(
    suite: SuiteSpec, monkeypatch: pytest.MonkeyPatch
):
    installed(monkeypatch, mujoco="3.8.1")
    assert describe_simulator(replace(suite, name="recorded")) is None


def test_a_sweep_is_resumed_only_under_the_simulator_that_it_began_with(
    suite: SuiteSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_simulator(tmp_path, check_simulator(tmp_path, suite))
    assert check_simulator(tmp_path, suite) == check_node(tmp_path, suite)
    installed(monkeypatch, mujoco=KNOWN_GOOD["mujoco"][0])
    said = f"began with mujoco {KNOWN_GOOD['mujoco'][-1]} and this machine has 3.2.3"
    with pytest.raises(ConfigError, match=said):
        check_simulator(tmp_path, suite)
    with pytest.raises(InfrastructureError, match=f"this node cannot play duq_mini: .*{said}"):
        check_node(tmp_path, suite)


def test_a_resumed_sweep_keeps_the_record_of_its_first_start(suite: SuiteSpec, tmp_path: Path):
    found = check_simulator(tmp_path, suite)
    assert found is not None
    write_simulator(tmp_path, found)
    write_simulator(tmp_path, replace(found, mujoco="3.2.3"))
    assert check_simulator(tmp_path, suite) == found
