"""The grammar of a space: Hydra's, without the forms that are easily misread."""

from __future__ import annotations

import pytest

from duqsweep.control.config.grammar import (
    Choice,
    Condition,
    FloatRange,
    IntRange,
    parse_condition,
    parse_domain,
)
from duqsweep.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("choice(16, 32)", Choice((16, 32))),
        ("choice(true, false)", Choice((True, False))),
        ("choice(dit_all, '.*(up|down)_proj')", Choice(("dit_all", ".*(up|down)_proj"))),
        ("16, 32", Choice((16, 32))),
        ("int(interval(1, 10))", IntRange(1, 10)),
        ("interval(1, 8)", FloatRange(1.0, 8.0)),
        ("interval(0.5, 2)", FloatRange(0.5, 2.0)),
        ("tag(log, int(interval(1, 64)))", IntRange(1, 64, log=True)),
        ("tag(log, interval(0.001, 1))", FloatRange(0.001, 1.0, log=True)),
        ("range(1, 4)", IntRange(1, 3)),
        ("range(1, 11, 3)", IntRange(1, 10, step=3)),
        ("range(5, 1, -2)", IntRange(3, 5, step=2)),
        ("range(0, 1, 0.25)", Choice((0.0, 0.25, 0.5, 0.75))),
        ("'choice(1, 2)'", Choice(("choice(1, 2)",))),
        ("hadamard", Choice(("hadamard",))),
        (4, Choice((4,))),
        (True, Choice((True,))),
    ],
)
def test_a_value_means_what_hydra_means_by_it(text, domain):
    assert parse_domain("k", text) == domain


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("interval(5, 1)", "start must lie below its end"),
        ("interval(3, 3)", "start must lie below its end"),
        ("tag(log, interval(0, 1))", "must start above 0"),
        ("tag(log, int, interval(1, 8))", "only a tag here"),
        ("tag(fine, interval(1, 8))", "the only tag is log"),
        ("tag(log, choice(1, 2))", "no order"),
        ("tag(log, range(1, 5))", "tags fit intervals"),
        ("range(5, 5)", "empty"),
        ("range(1, 5, 0)", "step is 0"),
        ("range(1, 1000000000)", "more than 100,000 values; an interval may"),
        ("range(0, 1, 1e-9)", "more than 100,000 values"),
        ("choice(1, 1)", "twice"),
        ("choice()", "empty choice"),
        ("choice(a, null)", "NoneType"),
        ("choice([1, 2], 3)", "each value must be"),
        ("choise(1, 2)", "Unknown function 'choise'"),
        ("glob(*)", "each value must be"),
        ("interval(1, inf)", "finite"),
        ("choice(1, nan)", "finite"),
        ("choice(1, 2", "input"),
        ([16, 32], "write choice"),
        (None, "write choice"),
    ],
)
def test_a_value_that_cannot_be_searched_is_refused_with_its_reason(text, reason):
    with pytest.raises(ConfigError, match=reason) as refused:
        parse_domain("quant.block_size", text)
    assert "space key quant.block_size" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_integer_is_not_the_boolean_it_equals():
    assert 1 not in Choice((True,))
    assert True not in IntRange(0, 3)
    assert 2 in IntRange(0, 4, step=2)
    assert 3 not in IntRange(0, 4, step=2)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("quant.rotation != none", Condition("quant.rotation", ("none",), negated=True)),
        ("runtime.compile==true", Condition("runtime.compile", (True,))),
        ("a in [1, 2]", Condition("a", (1, 2))),
        ("quant.include in [dit_all, 'a|b']", Condition("quant.include", ("dit_all", "a|b"))),
    ],
)
def test_a_condition_reads_as_it_is_written(text, condition):
    assert parse_condition("k", text) == condition


@pytest.mark.parametrize(
    "text", ["a = 3", "a in 3", "a == [1]", "a", "== 3", "a < 3", "a == (", ""]
)
def test_any_other_condition_is_refused(text):
    with pytest.raises(ConfigError, match="forms: KEY == VALUE"):
        parse_condition("k", text)


def test_a_condition_compares_values_of_their_own_type():
    settings = {"rotation": "none", "steps": 1}
    assert not parse_condition("k", "rotation != none").holds(settings)
    assert parse_condition("k", "steps in [1, 4]").holds(settings)
    assert not parse_condition("k", "steps == true").holds(settings)
