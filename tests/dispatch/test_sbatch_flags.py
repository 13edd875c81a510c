"""The configuration as options of sbatch, with the same meaning."""

from __future__ import annotations

from pathlib import Path

import pytest

from duqsweep.control.config.schema import ControllerConfig, LauncherConfig
from duqsweep.control.dispatch.batch import (
    asks_for_gpus,
    controller_header,
    sbatch_flags,
    worker_header,
    worker_script,
)
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


def test_gpus_are_asked_for_in_one_way() -> None:
    assert flags(gpus_per_node=1)["gpus-per-node"] == 1
    assert not {"gpus-per-node", "gres"} & set(flags())
    others: list[dict[str, object]] = [
        {"gres": "gpu:h200:1"},
        {"additional_parameters": {"gres": "gpu:1"}},
        {"additional_parameters": {"gpus_per_task": 1}},
    ]
    for other in others:
        config = LauncherConfig(name="slurm", gpus_per_node=1, **other)  # type: ignore[arg-type]
        assert "gpus-per-node" not in sbatch_flags(config)
        assert asks_for_gpus(config)
    assert flags(gpus_per_node=1, gres="nvme:1")["gpus-per-node"] == 1
    assert not asks_for_gpus(LauncherConfig(name="slurm", gres="nvme:1"))


def test_a_node_of_its_own_and_several_partitions() -> None:
    assert flags(exclusive=True, partition="gpu,long")["exclusive"] is True
    assert flags(partition="gpu,long")["partition"] == "gpu,long"
    assert "exclusive" not in flags()


def test_plan_shows_what_a_workers_script_begins_with(tmp_path: Path) -> None:
    config = LauncherConfig(
        name="slurm",
        partition="gpu,long",
        additional_parameters={"export": "ALL,HF_TOKEN=secret"},
        setup=["export MLFLOW_TRACKING_PASSWORD=secret"],
    )
    lines = worker_header(config, tmp_path / "sweep")
    assert all(line.startswith("#SBATCH --") for line in lines)
    assert "#SBATCH --partition=gpu,long" in lines
    assert "#SBATCH --time=240" in lines
    assert "#SBATCH --export=ALL,HF_TOKEN=***" in lines
    assert "secret" not in "".join(lines)
    script = worker_script(config, sbatch_flags(config), "name", tmp_path, "true")
    shown = {line.partition("=")[0] for line in lines}
    assert {line.partition("=")[0] for line in script.splitlines() if "#SBATCH" in line} == shown
    assert list(tmp_path.iterdir()) == []


def test_the_controllers_job_is_small_and_is_requeued(tmp_path: Path) -> None:
    config = LauncherConfig(
        name="slurm", partition="gpu", account="me", gpus_per_node=1, exclusive=True, mem_gb=48.0
    )
    lines = controller_header(config, tmp_path)
    asked = ["account=me", "cpus-per-task=1", "mem=2048M", "partition=gpu", "requeue", "time=1440"]
    assert {f"#SBATCH --{one}" for one in asked} <= set(lines)
    assert not [line for line in lines if "gpus" in line or "exclusive" in line]
    config.controller = ControllerConfig(partition="cpu", qos="long", mem_gb=None)
    lines = controller_header(config, tmp_path)
    assert {"#SBATCH --partition=cpu", "#SBATCH --qos=long"} <= set(lines)
    assert not [line for line in lines if "--mem" in line]
    config.controller.additional_parameters = {"requeue": False}
    with pytest.raises(ConfigError, match=r"launcher.controller.additional_parameters .*'requeue'"):
        controller_header(config, tmp_path)
