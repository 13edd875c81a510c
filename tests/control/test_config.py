"""Every file of conf/ composes, and every mistake is refused with one clear message."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import pytest

from duqsweep.conf_dir import conf_dir, group_options
from duqsweep.control.config.settings import LAYERS, SETTABLE, setting_of
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig, check_inputs, compose, load
from duqsweep.control.front.objectives import Objective
from duqsweep.errors import ConfigError
from duqsweep.fingerprint import fingerprint
from duqsweep.quant.select import select_layers

OPTIONS = [(group, name) for group, names in group_options().items() for name in names]
SWEEPS = group_options()["sweep"]


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        compose(overrides, config_dir)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_file_of_conf_composes(group, option):
    chosen = [f"+sweep={option}"] if group == "sweep" else ["+sweep=smoke", f"{group}={option}"]
    config = compose(chosen)
    if group == "sweep":
        assert config.name == option
    assert config.directory == Path.cwd() / "sweeps" / config.name


def test_no_file_of_conf_is_overlooked():
    listed = {conf_dir() / group / f"{name}.yaml" for group, name in OPTIONS}
    assert set(conf_dir().rglob("*.yaml")) - listed == {
        conf_dir() / "config.yaml",
        conf_dir() / "plans.yaml",
        conf_dir() / "suite" / "base" / "libero.yaml",
    }


def test_overrides_reach_the_record():
    config = compose(["+sweep=dit_speed", "sampler=random", "budget.trials=4", "seed=3", "dir=x/y"])
    assert config.sampler.name == "random"
    assert config.budget.trials == 4
    assert config.base.suite.seed == 3
    assert config.directory == Path.cwd() / "x" / "y"


def test_a_sweep_may_be_named_without_the_plus():
    assert compose(["sweep=smoke"]).name == "smoke"


def test_the_space_can_be_edited_on_the_command_line_without_quotes():
    config = compose(
        [
            "+sweep=dit_speed",
            "space.policy.num_steps=int(interval(2, 4))",
            "+space.quant.act_bits=choice(4, 8)",
            "~space.quant.block_size",
            "when.quant.act_bits=quant.include != dit_mlp",
        ]
    )
    assert config.space["policy.num_steps"] == "int(interval(2, 4))"
    assert config.space["quant.act_bits"] == "choice(4, 8)"
    assert "quant.block_size" not in config.space
    assert config.when == {"quant.act_bits": "quant.include != dit_mlp"}


def test_own_sweeps_are_found_in_a_further_folder(tmp_path):
    (tmp_path / "sweep").mkdir()
    text = "# @package _global_\nname: mine\nspace: {policy.num_steps: 'range(1, 4)'}\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(text)
    assert compose(["+sweep=mine"], tmp_path).space == {"policy.num_steps": "range(1, 4)"}


def test_objectives_default_to_success_and_time_and_know_their_directions():
    both = (Objective("success_rate", "maximize"), Objective("episode_time_s", "minimize"))
    assert compose(["+sweep=smoke"]).objectives == both
    three = compose(
        [
            "+sweep=smoke",
            "objectives=[{name: success_rate}, {name: weights_mb, direction: minimize}]",
        ]
    )
    assert three.objectives[1] == Objective("weights_mb", "minimize")


def asked_of_slurm(*overrides: str) -> tuple[int, int, float | None]:
    launcher = compose(["launcher=slurm", *overrides]).launcher
    return launcher.cpus_per_task, launcher.gpus_per_node, launcher.mem_gb


def test_a_slurm_job_asks_for_what_the_policy_needs_unless_told_otherwise():
    assert asked_of_slurm("+sweep=smoke") == (1, 0, 4.0)
    assert asked_of_slurm("+sweep=smoke", "policy=pi05_libero") == (8, 1, 48.0)
    assert asked_of_slurm("+sweep=dit_speed_gpu") == (8, 1, 16.0)
    more = ["launcher.cpus_per_task=4", "launcher.mem_gb=null"]
    assert asked_of_slurm("+sweep=smoke", *more) == (4, 0, None)
    assert compose(["+sweep=dit_speed_gpu"]).launcher.gpus_per_node == 0  # this machine gives all


def test_options_of_sbatch_may_hold_commas_and_may_be_added_without_a_plus():
    launcher = compose(
        [
            "+sweep=smoke",
            "launcher=slurm",
            "launcher.partition=gpu,long",
            "launcher.gres=gpu:a100:1,shard:2",
            "launcher.additional_parameters.mem_per_cpu=4G",
            "launcher.controller.additional_parameters={licenses: a}",
        ]
    ).launcher
    assert (launcher.partition, launcher.gres) == ("gpu,long", "gpu:a100:1,shard:2")
    assert launcher.additional_parameters == {"mem_per_cpu": "4G"}
    assert launcher.controller.additional_parameters == {"licenses": "a"}


def test_official_suites_keep_openpis_protocol():
    steps = {
        name: compose(["+sweep=smoke", f"suite={name}"]).base.suite.max_steps
        for name in ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    }
    assert steps == {
        "libero_spatial": 220,
        "libero_object": 280,
        "libero_goal": 300,
        "libero_10": 520,
    }


@pytest.mark.parametrize(
    ("include", "pi05"),
    [
        ("none", 0),
        ("dit_all", 126),
        ("dit_mlp", 54),
        ("dit_attn", 72),
        ("llm_all", 126),
        ("llm_dit_mlp", 180),
        ("llm_dit_all", 252),
        ("vision_all", 162),
        ("vision_mlp", 54),
        ("vision_attn", 108),
    ],
)
def test_named_rules_reach_the_layers_that_the_seed_counts(include, pi05):
    base = compose(["+sweep=smoke", "policy=pi05_libero", f"quant.include={include}"]).base
    assert len(select_layers(base.spec({}).quant, base.layers)) == pi05


def test_the_seeds_own_regex_means_the_mlp_of_every_stack():
    words = ["+sweep=smoke", 'quant.include=".*(gate_proj|up_proj|down_proj).*"']
    base = compose([*words, "policy=pi05_libero"]).base
    assert len(select_layers(base.spec({}).quant, base.layers)) == 108


def test_first_and_last_layers_of_each_quantized_stack_get_their_own_bits():
    base = compose(["+sweep=smoke", "quant.weight_bits.first_last=8"]).base
    bits = select_layers(base.spec({}).quant, base.layers)
    eight = {name.split(".layers.")[1].split(".")[0] for name, pair in bits.items() if pair[0] == 8}
    assert eight == {"0", "5"}
    assert all("gemma_expert" in layer.path for layer in base.spec({}).quant.layer_bits)


def test_a_single_layer_overrules_first_and_last():
    words = ["+sweep=smoke", "quant.weight_bits.first_last=8", "+quant.weight_bits.layers.0=3"]
    base = compose(words).base
    bits = select_layers(base.spec({}).quant, base.layers)
    found = {name.split(".layers.")[1].split(".")[0]: pair[0] for name, pair in bits.items()}
    assert found == {"0": 3, "1": 4, "2": 4, "3": 4, "4": 4, "5": 8}


def test_a_rule_of_its_own_is_tried_before_the_include():
    rule = "{include: self_attn, weight_bits: 8, act_bits: 16}"
    base = compose(["+sweep=smoke", f"quant.rules=[{rule}]"]).base
    bits = select_layers(base.spec({}).quant, base.layers)
    assert {pair for name, pair in bits.items() if "self_attn" in name} == {(8, 16)}
    assert {pair for name, pair in bits.items() if "mlp" in name} == {(4, 8)}


KNOBS = {
    "quant.include": "dit_mlp",
    "quant.weight_bits.default": 3,
    "quant.weight_bits.first_last": 8,
    "quant.weight_bits.layers.2": 8,
    "quant.act_bits": 4,
    "quant.rotation": "none",
    "quant.block_size": 32,
    "quant.permutation": "none",
    "quant.row_rotation": True,
    "quant.weight_scale": "absmax",
    "quant.weight_group_size": 64,
    "quant.act_scale": "static",
    "quant.act_percentile": 99.0,
    "quant.smoothing": 0.5,
    "quant.kernel": "loop",
    "quant.number_format": "e4m3",
    "policy.num_steps": 4,
    "policy.schedule": "cosine",
    "policy.schedule_shift": 2.0,
    "policy.reuse_images": True,
    "runtime.compile": True,
    "runtime.threads": 2,
    "suite.replan_steps": 10,
}


# What a knob has an effect beside.
BESIDE = {
    "quant.act_percentile": {"quant.act_scale": "static"},
    "quant.number_format": {"quant.weight_bits.default": 8},
    "policy.schedule_shift": {"policy.schedule": "shifted"},
}


@pytest.mark.parametrize("key", KNOBS)
def test_turning_a_knob_makes_another_trial(key):
    base = compose(["+sweep=smoke"]).base

    beside = BESIDE.get(key, {})

    def identity(changes):
        spec = base.spec({**beside, **changes})
        return fingerprint(spec, select_layers(spec.quant, base.layers))

    assert identity({key: KNOBS[key]}) != identity({})


def test_every_setting_of_a_trial_is_a_knob():
    assert {re.sub(r"\.\d+$", ".", key) for key in KNOBS} == {*SETTABLE, LAYERS}


@functools.cache
def smoke() -> SweepConfig:
    return compose(["+sweep=smoke"])


def impossible_values(declared):
    """A value of another type, and one of the setting's type that is not allowed, if any."""
    yield 1 if declared.kind is str else "word"
    bound = declared.low if declared.above is None else declared.above
    if declared.allowed:
        yield {int: 1, str: "unheard-of"}[declared.kind]
    elif bound is not None:
        yield declared.kind(bound - 1)


@pytest.mark.parametrize("key", [*SETTABLE, f"{LAYERS}1"])
def test_an_impossible_value_is_refused_wherever_it_is_given(key):
    steps = {"policy.num_steps": "choice(2, 3)"}
    for value in impossible_values(setting_of(key)):
        for changes in (
            {"space": {key: value}},
            {"space": {key: f"choice({value})"}},
            {"plans": {"mine": {key: value}}, "enqueue": ("mine",)},
            {"space": steps, "when": {"policy.num_steps": f"{key} == {value}"}},
        ):
            with pytest.raises(ConfigError, match=f"{key} must be .*, got {value!r}"):
                Space.from_config(dataclasses.replace(smoke(), **changes))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "which sweep.*dit_speed"),
        (["+sweep=dit_sped"], "unknown sweep 'dit_sped'.*did you mean 'dit_speed'.*seed_plans"),
        (["+sweep=smoke", "sampler=tpee"], "unknown sampler 'tpee'.*tpe"),
        (["+sweep=smoke", "quant.blocksize=32"], "no key 'quant.blocksize'.*quant.block_size"),
        (["+sweep=smoke", "+quant.lambda_smooth=0.15"], "no key 'quant.lambda_smooth'"),
        (["+sweep=smoke", "+quant.blocksize=32"], "no key 'quant.blocksize'"),
        (["+sweep=smoke", "budgt.trials=3"], "no key 'budgt'.*budget"),
        (["+sweep=smoke", "samplr=tpe"], "no key 'samplr'.*sampler"),
        (["+sweep=smoke", "budget.trials=fifty"], "budget.trials.*'fifty'.*Integer"),
        (["+sweep=smoke", "quant.act_bits=3.5"], "quant.act_bits.*3.5.*Integer"),
        (["+sweep=smoke", "runtime.compile=maybe"], "runtime.compile.*maybe"),
        (["+sweep=smoke", "suite.tasks=null"], "suite.tasks"),
        (["+sweep=smoke", "quant.rotation=hadamart"], "quant.rotation must be one of.*hadamart"),
        (["+sweep=smoke", "runtime.device=tpu"], "runtime.device must be one of.*cuda"),
        (["+sweep=smoke", "policy.name=pi1"], "policy must be one of.*pi1"),
        (["+sweep=smoke", "policy.num_steps=0"], "num_steps must be 1 to 100, got 0"),
        (["+sweep=smoke", "policy.num_steps=choice(1,2)"], "only stand in the space"),
        (["+sweep=smoke", "quant.rules=[{include: a, weight_bits: 4}]"], "act_bits.*missing"),
        (["+sweep=smoke", "quant.rules=[{include: a, weight_bits: 9, act_bits: 8}]"], "2 to 8.*9"),
        (["+sweep=smoke", "budget.trials=0"], "budget.trials.*got 0"),
        (["+sweep=smoke", "budget.episodes_per_trial=151"], "151.*holds 150"),
        (["+sweep=smoke", "budget.tolerated_failures=2"], "share, 0 to 1, got 2"),
        (["+sweep=smoke", "enqueue=[plan_x]"], "no plan 'plan_x'.*did you mean"),
        (["+sweep=smoke", "enqueue=[plan_a, plan_a]"], "'plan_a' twice"),
        (["+sweep=seed_plans", "enqueue=[]"], "neither"),
        (["+sweep=smoke", "objectives=[{name: sucess_rate}]"], "no objective.*success_rate"),
        (
            ["+sweep=smoke", "objectives=[{name: success_rate, direction: minimize}]"],
            "direction of objective success_rate is maximize, got 'minimize'",
        ),
        (["+sweep=smoke", "objectives=[{name: weights_mb}, {name: weights_mb}]"], "twice"),
        (["+sweep=smoke", "name=../up"], "folder's name.*'../up'"),
        (["+sweep=smoke", "launcher.name=slurn"], "inline, local, slurm.*did you mean 'slurm'"),
        (["+sweep=smoke", "launcher.cpus_per_task=0"], "cpus_per_task at 1"),
        (["+sweep=smoke", "launcher.idle_s=0"], "idle_s.*positive"),
        (["+sweep=smoke", "launcher.controller.mem_gb=0"], "controller.mem_gb must be positive"),
        (["+sweep=smoke", "launcher.controller.timeout_min=0"], "controller.timeout_min start at"),
        (["+sweep=smoke", "launcher.controller.timeout_min=3"], "at most half of .*=3, got 120"),
        (["+sweep=smoke", "sampler.population=1"], "sampler.population at 2"),
        (["+sweep=smoke", "dir=${nowhere}"], "dir: Interpolation key 'nowhere'"),
        (["+sweep=smoke", "sampler=3"], "must be a string.*sampler=3"),
        (["+sweep=smoke", "~space.quant.rotation"], "space has no key 'quant.rotation'"),
        (["+sweep=smoke", "space.quant.rotation"], "needs a value"),
    ],
)
def test_a_mistake_gets_one_message_that_names_it(overrides, message):
    assert re.search(message, refusal(*overrides)), refusal(*overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine\nbugdet: {trials: 3}\n", "sweep/mine.yaml.*no key 'bugdet'.*budget"),
        ("name: mine\nbudget: {trials: many}\n", "sweep/mine.yaml:3: budget.trials.*many"),
        ("name: mine\nbudget: {trials: 3\nx: -", "not YAML.*mine.yaml.*line 3"),
        ("defaults:\n  - override /suite: nope\nname: mine\n", "unknown suite 'nope'"),
    ],
)
def test_a_mistake_in_an_own_file_names_the_file_or_the_key(tmp_path, text, message):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    found = refusal("+sweep=mine", config_dir=tmp_path)
    assert re.search(message, found), found


def test_a_missing_config_dir_is_refused(tmp_path):
    assert "must be a folder" in refusal("+sweep=smoke", config_dir=tmp_path / "none")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.checkpoint=/nowhere"], "/nowhere"),
        (["policy=pi05_libero"], "policy.checkpoint"),
        (["suite=libero_goal", "suite.assets=/nowhere"], "/nowhere"),
        (["suite.name=libero_9"], "libero_9"),
        (["suite.tasks=60"], "tasks"),
    ],
)
def test_missing_files_are_found_before_anything_starts(overrides, message):
    config = compose(["+sweep=smoke", *overrides])
    with pytest.raises(ConfigError, match=message):
        check_inputs(config)


def test_composing_again_leaves_no_trace_of_the_first_time():
    assert load(["+sweep=smoke", "seed=1"]) != load(["+sweep=smoke"])
    assert load(["+sweep=smoke"]) == load(["+sweep=smoke"])


def test_a_sweep_without_episodes_trades_no_success():
    assert compose(["+sweep=latency"]).budget.episodes_per_trial == 0
    told = refusal("+sweep=dit_speed", "budget.episodes_per_trial=0")
    assert re.search("episodes_per_trial is 0.*success_rate needs at least 1.*call_ms", told)
    assert "starts at 1 and" in refusal("+sweep=latency", "budget.episodes_per_trial=-1")


def test_recorded_observations_cannot_be_played():
    check_inputs(compose(["+sweep=latency"]))
    with pytest.raises(ConfigError, match=r"recorded holds observations and no episodes.*got 3"):
        check_inputs(compose(["+sweep=latency", "budget.episodes_per_trial=3"]))
    with pytest.raises(ConfigError, match=r"there is none at /no/such\.npz"):
        check_inputs(compose(["+sweep=latency", "suite.assets=/no/such.npz"]))
