"""Every record that is written to a file comes back as it was, and no other record is accepted."""

from __future__ import annotations

import dataclasses
import json
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duqsweep.codec import decode, encode
from duqsweep.errors import SpecError
from duqsweep.mailbox import Heartbeat, Job, Outcome, WorkerConfig, WorkerExit
from duqsweep.result import EpisodeRecord, LatencyStats, TrialResult, Vitals
from duqsweep.spec import (
    BITS_ALLOWED,
    BLOCK_SIZES,
    GROUP_SIZES,
    LayerBits,
    LayerRule,
    LedgerEntry,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
    Trial,
    TrialSpec,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(max_size=5)
PLAIN = st.none() | st.booleans() | st.integers() | FLOATS | TEXT
BITS = st.sampled_from(BITS_ALLOWED)
POSITIVE = st.integers(1, 500)
LATENCY = st.builds(
    lambda p, n: LatencyStats(p[0], p[1], n),
    st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)).map(sorted),
    POSITIVE,
)


def records(cls: type, **allowed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any value of each field's type, or one of `allowed` for a field that the record checks."""
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    fields = {name: allowed[name] if name in allowed else values(hints[name]) for name in names}
    return st.builds(cls, **fields)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Small values of a type that the codec knows; floats are finite, as JSON needs."""
    args = get_args(hint)
    if get_origin(hint) is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if get_origin(hint) is tuple:
        return st.tuples(*map(values, args))
    if get_origin(hint) in (UnionType, Union):
        return st.one_of(*map(values, args))
    if hint is LatencyStats:
        return LATENCY
    if dataclasses.is_dataclass(hint):
        return records(cast(type, hint))
    known = {float: FLOATS, str: TEXT, Any: PLAIN}
    return known[hint] if hint in known else st.from_type(hint)


def results() -> st.SearchStrategy[TrialResult]:
    return st.builds(
        lambda outcome, reason, counts, rate, error: TrialResult(
            outcome, reason, sum(counts), counts[0], counts[1], rate, error, error
        ),
        st.sampled_from(("complete", "stopped", "failed")),
        TEXT,
        st.tuples(*[st.integers(0, 100)] * 3),  # successes, errors, failures
        st.none() | st.floats(0, 1),
        st.text(min_size=1, max_size=5),
    )


RULES = records(LayerRule, include=st.just(r"q_proj|layers\.1"), weight_bits=BITS, act_bits=BITS)
QUANT = records(
    QuantSpec,
    rules=st.lists(RULES, max_size=2).map(tuple),
    layer_bits=st.lists(
        records(LayerBits, path=st.just("layers.0"), weight_bits=BITS), max_size=2
    ).map(tuple),
    block_size=st.sampled_from(BLOCK_SIZES),
    weight_group_size=st.sampled_from(GROUP_SIZES),
    smoothing=st.floats(0, 1),
    act_percentile=st.floats(50, 100, exclude_min=True),
    kernel=st.sampled_from(("fake", "loop")),
)
SUITE = records(
    SuiteSpec,
    **dict.fromkeys(("tasks", "image_px", "max_steps", "nominal_steps", "replan_steps"), POSITIVE),
    init_states=st.integers(2, 100),
    seed=st.integers(0, 2**31 - 1),
    settle_steps=st.integers(0, 100),
    categories=st.lists(TEXT, unique=True, max_size=3).map(tuple),
)
SPEC = records(
    TrialSpec,
    policy=records(
        PolicySpec,
        num_steps=st.integers(1, 100),
        schedule_shift=st.floats(0, 100, exclude_min=True),
    ),
    quant=QUANT,
    runtime=records(RuntimeSpec, threads=POSITIVE),
    suite=SUITE,
)
# Each record that has a file of its own, or a line of one.
FILED: dict[type, st.SearchStrategy[Any]] = {
    Trial: records(Trial, spec=SPEC),
    LedgerEntry: records(LedgerEntry),
    Vitals: records(Vitals),
    EpisodeRecord: records(EpisodeRecord),
    TrialResult: results(),
    WorkerConfig: records(WorkerConfig),
    Job: records(Job),
    Heartbeat: records(Heartbeat),
    WorkerExit: records(WorkerExit),
    Outcome: records(Outcome),
}


@pytest.mark.parametrize("cls", FILED, ids=lambda cls: cls.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_a_record_comes_back_from_json_as_it_was(cls: type, data: st.DataObject) -> None:
    record = data.draw(FILED[cls])
    found = decode(cls, json.loads(json.dumps(encode(record))))
    assert found == record
    assert repr(found) == repr(record)  # True is not 1, and a tuple is not a list


@pytest.mark.parametrize("cls", FILED, ids=lambda cls: cls.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_a_missing_unknown_or_mistyped_key_is_refused_by_name(
    cls: type, data: st.DataObject
) -> None:
    content = encode(data.draw(FILED[cls]))
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    name = data.draw(st.sampled_from(required))
    without = {key: value for key, value in content.items() if key != name}
    with pytest.raises(SpecError, match=f"lacks the key '{name}'"):
        decode(cls, without)
    with pytest.raises(SpecError, match=f"no key '{name}x'"):
        decode(cls, {**content, f"{name}x": 0})
    assert name in get_type_hints(cls)
    with pytest.raises(SpecError, match=f"^{name} must be"):
        decode(cls, {**content, name: [[]]})  # no field is a list of lists
