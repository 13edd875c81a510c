"""Impossible points of a space are found before the sweep starts; possible ones are accepted."""

from __future__ import annotations

import dataclasses
import functools
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from duqsweep.control.config.grammar import Choice, Condition
from duqsweep.control.config.parameters import Parameter
from duqsweep.control.config.space import Space
from duqsweep.control.config.sweep_config import compose
from duqsweep.errors import ConfigError

VALUES = {
    "quant.rotation": ("hadamard", "svd", "greedy", "none"),
    "quant.row_rotation": (False, True),
    "quant.permutation": ("zigzag", "none"),
    "quant.act_scale": ("per_token", "static"),
    "quant.smoothing": (0.0, 0.5),
    "quant.kernel": ("fake", "w4a8"),
    "quant.include": ("dit_all", "vision_mlp", "none"),
    "quant.weight_bits.default": (3, 4, 8, 16),
    "quant.act_bits": (8, 16),
    "quant.weight_bits.first_last": (8, 16),
    "quant.weight_bits.layers.1": (4, 16),
    "quant.weight_bits.layers.2": (8, 16),
    "quant.block_size": (16, 32, 64, 128, 48),
    "quant.weight_group_size": (0, 64, 128),
}


@functools.cache
def base() -> Space:
    config = compose(["+sweep=smoke", "quant.include=dit_all"])
    return dataclasses.replace(Space.from_config(config), plans={})


@st.composite
def spaces(draw) -> Space:
    keys = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=5, unique=True))
    parameters: list[Parameter] = []
    for key in keys:
        values = draw(st.lists(st.sampled_from(VALUES[key]), min_size=1, max_size=3, unique=True))
        condition = None
        if parameters and draw(st.booleans()):
            other = draw(st.sampled_from(parameters))
            value = draw(st.sampled_from(VALUES[other.key]))
            condition = Condition(other.key, (value,), draw(st.booleans()))
            # Others are refused when the configuration is read.
            assume(any(condition.holds({other.key: known}) for known in other.domain.values))
        parameters.append(Parameter(key, Choice(tuple(values)), condition))
    return dataclasses.replace(base(), parameters=tuple(parameters))


@settings(max_examples=60)
@given(spaces())
def test_a_space_is_refused_if_and_only_if_one_of_its_points_is(space: Space) -> None:
    def is_possible() -> bool:
        try:
            for point in space.points():
                space.bits(space.spec(point))
        except ConfigError:
            return False
        return True

    if is_possible():
        space.check()
        return
    with pytest.raises(ConfigError):
        space.check()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+sweep=latency", "space.quant.block_size=range(16,65,16)"], "must be one of.*got 48"),
        (["+sweep=smoke", "space.quant.weight_bits.default=int(interval(4,16))"], "got 9"),
        (["+sweep=smoke", "space.quant.weight_group_size=range(32,129,32)"], "got 96"),
        (["+sweep=smoke", "space.policy.num_steps=int(interval(1,100000))"], "num_steps.*100000"),
    ],
)
def test_a_value_inside_of_a_range_is_looked_at_too(words, message):
    with pytest.raises(ConfigError, match=message):
        Space.from_config(compose(words))


def test_a_large_space_is_checked_in_seconds():
    left_out = ("quant.include", "quant.row_rotation", "quant.kernel", "quant.weight_group_size")
    fitting = {**VALUES, "quant.block_size": (16, 32, 64)}
    space = dataclasses.replace(
        base(),
        parameters=tuple(
            Parameter(key, Choice(values)) for key, values in fitting.items() if key not in left_out
        ),
    )
    assert space.size() == 4 * 2 * 2 * 2 * 4 * 2 * 2 * 2 * 2 * 3
    started = time.process_time()
    space.check()
    assert time.process_time() - started < 10.0
