"""The configuration as options of sbatch, with the same meaning."""

from __future__ import annotations

import pytest

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch.slurm import sbatch_flags
from duqsweep.errors import ConfigError


def flags(**settings: object) -> dict[str, object]:
    return dict(sbatch_flags(LauncherConfig(name="slurm", **settings)))  # type: ignore[arg-type]


def test_memory_is_asked_for_a_node_unless_it_is_left_out_or_asked_for_otherwise() -> None:
    assert flags(mem_gb=48.0)["mem"] == "49152M"
    assert "mem" not in flags(mem_gb=None)
    for key in ("mem_per_cpu", "mem-per-cpu", "mem_per_gpu"):
        asked = flags(mem_gb=48.0, additional_parameters={key: "4G"})
        assert asked[key.replace("_", "-")] == "4G"
        assert "mem" not in asked
    assert flags(mem_gb=48.0, additional_parameters={"mem": "0"})["mem"] == "0"


def test_false_and_null_leave_an_option_out_and_true_gives_it_without_a_value() -> None:
    given = {"exclusive": True, "requeue-hold": False, "nice": None, "mem_per_cpu": None}
    asked = flags(additional_parameters=given)
    assert asked["exclusive"] is True
    assert not {"requeue-hold", "nice", "mem-per-cpu"} & set(asked)
    assert "mem" in asked
    assert "partition" not in flags(partition="gpu", additional_parameters={"partition": None})


def test_a_list_is_its_words_with_commas() -> None:
    assert flags(additional_parameters={"exclude": ["n1", "n2"]})["exclude"] == "n1,n2"
    with pytest.raises(ConfigError, match="licenses must be a word"):
        flags(additional_parameters={"licenses": {"a": 1}})
