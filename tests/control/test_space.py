"""A space is checked completely before anything starts, and produces the declared trials."""

from __future__ import annotations

import json
import random
import re

import pytest
from composed import composed

from duqsweep.control.config.grammar import Choice, IntRange
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import SweepConfig
from duqsweep.errors import ConfigError
from duqsweep.spec import Trial

PI05 = "policy=pi05_libero"


def config_of(*overrides: str, sweep: str = "dit_speed") -> SweepConfig:
    return composed(f"+sweep={sweep}", *overrides)


def space_of(*overrides: str, sweep: str = "dit_speed") -> Space:
    return Space.from_config(config_of(*overrides, sweep=sweep))


@pytest.mark.parametrize("sweep", ["smoke", "dit_speed", "seed_plans"])
@pytest.mark.parametrize("policy", ["embedded", "pi05_libero"])
def test_every_shipped_space_can_be_evaluated(sweep, policy):
    space = space_of(f"policy={policy}", sweep=sweep)
    assert "reference" in space.plans


def test_parameters_come_in_the_order_of_the_file():
    keys = [parameter.key for parameter in space_of().parameters]
    assert keys[:3] == ["runtime.compile", "quant.block_size", "policy.num_steps"]
    assert space_of().parameters[2].domain == IntRange(1, 10)


def test_one_bit_parameter_a_layer_reaches_the_deepest_stack_of_any_include():
    layers = "space.quant.weight_bits.layers.*=choice(4, 8)"
    keys = [p.key for p in space_of(layers, PI05).parameters if ".layers." in p.key]
    assert keys == [f"quant.weight_bits.layers.{i}" for i in range(18)]
    with_vision = "space.quant.include=choice(dit_mlp, vision_all)"
    sixteen = "space.quant.block_size=choice(16)"
    deeper = [p.key for p in space_of(layers, PI05, with_vision, sixteen).parameters]
    assert "quant.weight_bits.layers.26" in deeper


def test_a_layers_bits_reach_that_layer_and_no_other():
    space = space_of("space.quant.weight_bits.layers.*=choice(4, 8)", PI05)
    bits = space.bits(space.spec({"quant.weight_bits.layers.1": 8}))
    eight = {name for name, pair in bits.items() if pair[0] == 8}
    assert eight == {name for name in bits if ".layers.1." in name}
    assert len(eight) == 7


def test_a_conditional_parameter_is_drawn_only_where_its_condition_holds():
    space = space_of(
        "space.quant.rotation=choice(hadamard, none)",
        "when.quant.block_size=quant.rotation != none",
    )
    rng = random.Random(0)
    points = [space.random_point(rng) for _ in range(60)]
    assert {p["quant.rotation"] for p in points} == {"hadamard", "none"}
    assert all(("quant.block_size" in p) == (p["quant.rotation"] == "hadamard") for p in points)


def test_a_condition_waits_for_the_parameter_that_it_looks_at():
    keys = [p.key for p in space_of("when.runtime.compile=quant.block_size == 16").parameters]
    assert keys.index("runtime.compile") > keys.index("quant.block_size")


def test_a_parameter_without_its_condition_takes_the_bases_value():
    space = space_of("when.quant.block_size=policy.num_steps == 1", "quant.block_size=64")
    params = space.draw(lambda p: p.domain.values[-1])
    assert "quant.block_size" not in params
    assert space.spec(params).quant.block_size == 64


def test_the_size_counts_only_points_that_differ():
    words = ["space.quant.block_size=choice(16, 32)", "when.quant.block_size=quant.act_bits == 8"]
    small = space_of(*words, "+space.quant.act_bits=choice(4, 8)", sweep="smoke")
    assert small.size() == 3
    assert len({tuple(sorted(point.items())) for point in small.points()}) == 3
    assert space_of().size() == 2 * 3 * 10 * 3 * 4 * 2 * 3
    assert space_of("+space.quant.smoothing=interval(0, 1)").size() is None


def test_a_plan_inside_the_space_is_a_point_of_it_and_another_is_not():
    space = space_of()
    assert space.point_of("plan_c") == {
        "runtime.compile": True,
        "quant.block_size": 32,
        "policy.num_steps": 10,
        "quant.include": "dit_mlp",
        "quant.weight_bits.default": 4,
        "quant.weight_bits.first_last": 4,
        "suite.replan_steps": 5,
    }
    assert space.point_of("reference") is None
    assert space.point_of("seed_current") is None


def test_a_plan_and_its_point_are_the_same_trial():
    space = space_of()
    point = space.point_of("plan_a")
    assert point is not None
    by_point = space.trial(1, point)
    assert by_point.fingerprint == space.trial(0, dict(space.plans["plan_a"])).fingerprint


def test_the_seeds_plans_are_what_the_document_says():
    space = space_of(PI05, sweep="seed_plans")
    trials = {name: space.trial(0, dict(plan), name) for name, plan in space.plans.items()}
    bits = {name: space.bits(trial.spec) for name, trial in trials.items()}
    assert {name: len(found) for name, found in bits.items()} == {
        "reference": 0,
        "seed_current": 126,
        "plan_a": 126,
        "plan_b": 126,
        "plan_c": 54,
        "plan_d": 126,
        "llm_only": 126,
    }
    assert {pair for found in bits.values() for pair in found.values()} == {(4, 8)}
    assert {trial.spec.policy.num_steps for trial in trials.values()} == {10}
    compiled = {name for name, trial in trials.items() if trial.spec.runtime.compile}
    assert compiled == {"plan_a", "plan_b", "plan_c"}
    assert {n for n, t in trials.items() if t.spec.quant.block_size == 32} == {"plan_b", "plan_c"}
    assert trials["plan_d"].spec.quant.rotation == "none"
    assert len({trial.fingerprint for trial in trials.values()}) == 7


def test_a_trial_survives_the_way_through_its_file():
    space = space_of()
    trial = space.trial(3, space.random_point(random.Random(1)), None)
    assert Trial.from_json(trial.to_json()) == trial


def test_two_texts_of_one_regex_are_one_trial():
    space = space_of()
    long = {"quant.include": r"gemma_expert\.model\.layers\.\d+\.mlp\.(gate|up|down)_proj"}
    named = {"quant.include": "dit_mlp"}
    assert space.trial(0, long).fingerprint == space.trial(1, named).fingerprint


def test_without_quantized_layers_the_quantizers_settings_do_not_matter():
    space = space_of()
    none = {"quant.include": "none"}
    other = {**none, "quant.block_size": 64, "quant.weight_bits.default": 2}
    assert space.trial(0, none).fingerprint == space.trial(1, other).fingerprint


def test_the_hash_knows_what_changes_a_sweep_and_nothing_else():
    same = [[], ["budget.trials=3"], ["sampler=random"], ["launcher=inline"], ["enqueue=[plan_b]"]]
    assert len({space_of(*words).hash for words in same}) == 1
    others = [
        ["space.quant.block_size=choice(16, 32)"],
        ["when.quant.block_size=policy.num_steps == 1"],
        ["quant.act_bits=4"],
        ["seed=8"],
        ["suite.max_steps=99"],
        ["objectives=[{name: success_rate}, {name: weights_mb}]"],
    ]
    assert len({space_of(*words).hash for words in [[], *others]}) == 7


def test_an_integer_is_taken_for_a_float_setting():
    space = space_of("+space.quant.smoothing=choice(0, 0.5)")
    assert space.parameters[-1].domain == Choice((0.0, 0.5))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+space.quant.blok_size=choice(16)"], "cannot set 'quant.blok_size'.*quant.block_size"),
        (["+space.suite.max_steps=choice(1, 2)"], "cannot set 'suite.max_steps'"),
        (["+space.quant.weight_bits=choice(4, 8)"], "group of keys.*weight_bits.default"),
        (
            ["space.quant.block_size=choice(16, 48)"],
            r"quant.block_size must be one of 16, 32, 64, 128, got 48 in 'choice\(16, 48",
        ),
        ([PI05, "space.quant.include=choice(vision_all)"], "block_size 32 does not divide.*4304"),
        (["space.quant.include=choice(dit_al)"], "matches none.*did you mean 'dit_all'"),
        (["space.quant.include=choice('(', dit_all)"], "not a regular expression"),
        (["quant.include=nothing_like_it"], "base configuration: rule.*matches none"),
        (["space.quant.weight_bits.default=choice(4, 9)"], "2 to 8, or 16.*got 9"),
        (["space.quant.weight_bits.first_last=choice(1)"], "2 to 8, or 16.*got 1"),
        (["+space.quant.weight_bits.layers.9=choice(4)"], r"layers\.9.*reaches none"),
        (["+quant.weight_bits.layers.3=9"], r"layers\.3.*got 9"),
        (["space.policy.num_steps=interval(1, 8)"], r"write int\(interval\(1, 8\)\)"),
        (["space.policy.num_steps=int(interval(0, 8))"], "num_steps must be 1 to 100, got 0"),
        (["space.policy.num_steps=choice(1, two)"], "must be int, got 'two'"),
        (["space.runtime.compile=choice(0, 1)"], "must be bool, got 0"),
        (["space.runtime.compile=interval(0, 1)"], "takes a choice"),
        (["+space.quant.kernel=choice(fake, fast)"], "quant.kernel must be one of.*'fast'"),
        (["+space.quant.row_rotation=choice(true)", "quant.rotation=none"], "row_rotation"),
        (["when.quant.rotation=policy.num_steps == 1"], "the space has no such key"),
        (["when.quant.block_size=quant.rotatio != none"], "quant.rotatio'.*quant.rotation"),
        (
            ["when.quant.block_size=policy.num_steps == one"],
            "policy.num_steps must be int, got 'one'",
        ),
        (
            [
                "when.quant.block_size=policy.num_steps == 3",
                "when.policy.num_steps=quant.block_size == 16",
            ],
            "depend on each other",
        ),
        (
            ["+plans.mine={quant.blocksize: 32}", "enqueue=[mine]"],
            "plan mine: a trial cannot set 'quant.blocksize'",
        ),
        (
            ["+plans.mine={quant.block_size: a}", "enqueue=[mine]"],
            "plan mine.*must be int, got 'a'",
        ),
        (["+plans.mine={quant.block_size: 48}", "enqueue=[mine]"], "plan mine.*got 48"),
        (
            ["space.quant.include=choice(none)", "+space.quant.weight_bits.layers.*=choice(4)"],
            "reaches no layer",
        ),
    ],
)
def test_a_space_with_an_impossible_trial_is_refused_with_one_message(overrides, message):
    with pytest.raises(ConfigError) as refused:
        space_of(*overrides)
    assert re.search(message, str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["space.quant.kernel=choice(fake, int8)", "space.quant.rotation=choice(hadamard, svd)"],
            "kernel=int8 needs rotation=hadamard or none, got svd",
        ),
        (["quant.kernel=int8", "quant.act_bits=16"], "kernel=int8 multiplies integers.*W4A16"),
        (["quant.kernel=fp8"], "kernel=fp8 multiplies numbers of 8 bits.*W4A8"),
        (
            [
                "space.quant.number_format=choice(integer, e4m3)",
                "space.quant.weight_bits.default=choice(8, 6)",
                "space.quant.weight_bits.first_last=choice(8)",
            ],
            "number_format=e4m3 has 8 bits.*W6A8",
        ),
        (["space.quant.kernel=choice(w4a8)", "runtime.device=cpu"], "runtime.device is cpu"),
    ],
)
def test_a_space_with_a_kernel_that_cannot_run_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        space_of("enqueue=[reference]", *overrides)


def test_a_condition_keeps_impossible_kernels_out_of_a_space():
    space = space_of(
        "enqueue=[reference]",
        "space.quant.kernel=choice(int8, fake)",
        "space.quant.rotation=choice(svd, hadamard)",
        "when.quant.rotation=quant.kernel == fake",
    )
    for point in (space.random_point(random.Random(seed)) for seed in range(50)):
        assert "quant.rotation" not in point or point["quant.kernel"] == "fake"
        space.trial(0, point)


@pytest.fixture
def student(tmp_path):
    """The words of a checkpoint that is distilled to one or two steps."""
    text = json.dumps({"distilled_steps": [2, 1], "target_time": True})
    (tmp_path / "config.json").write_text(text)
    return ["policy=pi05_libero", f"policy.checkpoint={tmp_path}"]


def test_the_steps_of_a_distilled_checkpoint_are_searched_and_its_reference_has_the_most(student):
    words = ["policy.num_steps=1", "enqueue=[reference]"]
    words += ["+space.policy.num_steps=choice(1, 2)", "+space.quant.weight_bits.default=choice(4)"]
    space = space_of(*student, *words)
    assert {point["policy.num_steps"] for point in space.points()} == {1, 2}
    assert space.plans["reference"]["policy.num_steps"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "base configuration: checkpoint .* is distilled for 1 or 2 .*got 10"),
        (
            ["policy.num_steps=1", "+space.policy.num_steps=choice(1, 4)"],
            r"space \(policy.num_steps=4\): checkpoint .* must be 1 or 2, got 4",
        ),
        (["policy.num_steps=2", "policy.schedule=cosine"], "must be uniform, got cosine"),
        (["policy.num_steps=1", "enqueue=[plan_a]"], r"plan plan_a .*got 10"),
    ],
)
def test_other_steps_than_those_of_a_distilled_checkpoint_are_refused(student, words, message):
    with pytest.raises(ConfigError, match=message):
        space_of(*student, "enqueue=[reference]", *words)
