"""Records check themselves, survive JSON, and equal work has one fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duqsweep.codec import FLAT, decode, encode
from duqsweep.errors import ConfigError, SpecError
from duqsweep.fingerprint import fingerprint
from duqsweep.quant.select import check_layer
from duqsweep.setting import Rule
from duqsweep.spec import (
    BITS_ALLOWED,
    LayerBits,
    LayerRule,
    PolicySpec,
    QuantSpec,
    RuntimeSpec,
    SuiteSpec,
    TrialSpec,
    numbers_of,
)

FINGERPRINT = "48bb601504db4a86"  # of `spec()` and `BITS`
BITS = {"a.layers.0.q_proj": (4, 8), "a.layers.1.q_proj": (16, 16)}
SUITE = SuiteSpec(
    name="duq_mini",
    tasks=6,
    init_states=50,
    image_px=64,
    max_steps=150,
    nominal_steps=81,
    settle_steps=5,
    replan_steps=5,
)


def spec(**quant: object) -> TrialSpec:
    rules = (LayerRule("q_proj", 4, 8),)
    return TrialSpec(
        policy=PolicySpec("embedded"),
        quant=replace(QuantSpec(rules=rules), **quant),  # type: ignore[arg-type]
        runtime=RuntimeSpec(),
        suite=SUITE,
    )


@given(st.integers(-3, 40))
def test_bits_are_two_to_eight_or_sixteen(bits: int) -> None:
    if bits in BITS_ALLOWED:
        assert LayerRule("q", bits, 8).weight_bits == bits
    else:
        with pytest.raises(SpecError, match=f"got {bits}"):
            LayerRule("q", bits, 8)


def test_a_regex_that_does_not_compile_is_refused_with_its_text() -> None:
    with pytest.raises(SpecError, match=r"'\(q' is not a regular expression"):
        LayerRule("(q", 4, 8)


def test_an_empty_layer_path_is_refused() -> None:
    with pytest.raises(SpecError, match="dotted components"):
        LayerBits("layers.", 8)


def test_a_spec_survives_json() -> None:
    original = spec(layer_bits=(LayerBits("layers.0", 8),))
    assert TrialSpec.from_json(original.to_json()) == original


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    data = spec().to_json()
    data["quant"]["blocksize"] = 16
    with pytest.raises(SpecError, match=r"quant has no key 'blocksize'; it has .*block_size"):
        TrialSpec.from_json(data)


def test_the_prototypes_lambda_is_not_offered_because_it_changes_nothing() -> None:
    """It shrinks all energies alike before they are ranked, so that their order stays."""
    data = spec().to_json()
    data["quant"]["lambda_smooth"] = 0.15
    with pytest.raises(SpecError, match=r"quant has no key 'lambda_smooth'; it has .*smoothing"):
        TrialSpec.from_json(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": 48}, "quant.block_size must be one of 16, 32, 64, 128, got 48"),
        ({"rotation": "svd2"}, "quant.rotation must be one of hadamard, .*, got 'svd2'"),
        ({"smoothing": float("nan")}, "quant.smoothing must be 0 to 1, got nan"),
        ({"smoothing": -0.1}, "quant.smoothing must be 0 to 1, got -0.1"),
        ({"act_percentile": 50.0}, "quant.act_percentile must be more than 50 and at most 100"),
        ({"act_percentile": 100.5}, "quant.act_percentile must be .*, got 100.5"),
    ],
)
def test_an_impossible_value_is_refused_with_its_key_and_rule(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        spec(**change)


def test_a_rule_is_shown_only_the_settings_that_it_declares() -> None:
    rule = Rule(("rotation",), lambda quant: quant.kernel)
    with pytest.raises(AttributeError, match="kernel"):
        rule.of(QuantSpec())()


def test_a_wrong_type_is_refused_with_its_place() -> None:
    data = spec().to_json()
    data["policy"]["num_steps"] = "ten"
    with pytest.raises(SpecError, match=r"policy\.num_steps must be int, got 'ten'"):
        TrialSpec.from_json(data)


def test_nominal_calls_round_up() -> None:
    assert SUITE.nominal_calls == 17


def test_regexes_that_reach_the_same_layers_share_a_fingerprint() -> None:
    other = spec(rules=(LayerRule(r"layers\.0\.q_proj", 4, 8),))
    assert fingerprint(spec(), BITS) == fingerprint(other, BITS)


def test_a_method_without_quantized_layers_has_no_say() -> None:
    assert fingerprint(spec(), {}) == fingerprint(spec(rotation="svd", block_size=64), {})


@pytest.mark.parametrize(
    "change",
    [
        {"block_size": 32},
        {"rotation": "svd"},
        {"permutation": "none"},
        {"act_scale": "static"},
        {"smoothing": 0.5},
        {"kernel": "loop"},
        {"kernel": "int8"},
        {"kernel": "w4a8"},
        {"kernel": "fp8"},
        {"number_format": "e4m3"},
        {"weight_group_size": 32},
    ],
)
def test_each_knob_makes_another_fingerprint(change: dict[str, object]) -> None:
    assert fingerprint(spec(), BITS) != fingerprint(spec(**change), BITS)


def test_blocks_and_orders_have_no_say_where_nothing_is_rotated_or_grouped() -> None:
    plain = spec(rotation="none", permutation="none", block_size=16)
    other = spec(rotation="none", permutation="zigzag", block_size=64)
    assert fingerprint(plain, BITS) == fingerprint(other, BITS)


def test_other_bits_of_one_layer_make_another_fingerprint() -> None:
    assert fingerprint(spec(), BITS) != fingerprint(spec(), {**BITS, "a.layers.0.q_proj": (8, 8)})


def test_a_schedule_counts_where_it_moves_a_time_and_reuse_where_it_is_on() -> None:
    base = spec()

    def of(**changes: object) -> str:
        policy = replace(base.policy, **changes)  # type: ignore[arg-type]
        return fingerprint(replace(base, policy=policy), BITS)

    found = [of(schedule=kind) for kind in ("uniform", "shifted", "cosine")]
    assert len({*found, of(schedule="shifted", schedule_shift=2.0)}) == 4
    assert found[0] == fingerprint(base, BITS) == of(schedule_shift=2.0)
    assert found[2] == of(schedule="cosine", schedule_shift=2.0)
    assert of(num_steps=1) == of(num_steps=1, schedule="shifted")
    assert of(reuse_images=True) != found[0]


def test_a_number_format_counts_only_where_a_kernel_can_choose_it() -> None:
    chosen = fingerprint(spec(kernel="fp8", number_format="e4m3"), BITS)
    assert chosen == fingerprint(spec(kernel="fp8"), BITS)
    assert numbers_of(QuantSpec(kernel="fp8")) == "e4m3"
    assert numbers_of(QuantSpec(kernel="int8")) == "integer"


def test_fingerprints_from_before_there_were_number_formats_hold() -> None:
    assert fingerprint(spec(), BITS) == FINGERPRINT


@pytest.mark.parametrize(
    ("kernel", "knob", "value", "needed"),
    [
        ("int8", "number_format", "e4m3", "number_format=integer, got e4m3"),
        ("w4a8", "number_format", "e4m3", "number_format=integer, got e4m3"),
        ("fp8", "weight_group_size", 32, "weight_group_size=0, got 32"),
    ],
)
def test_a_kernel_refuses_other_formats(kernel: str, knob: str, value: object, needed: str) -> None:
    with pytest.raises(SpecError, match=f"kernel={kernel} needs {needed}"):
        spec(kernel=kernel, **{knob: value})


@pytest.mark.parametrize(
    ("quant", "bits", "why"),
    [
        (QuantSpec(kernel="fp8"), (8, 8), None),
        (QuantSpec(kernel="fp8"), (4, 8), "kernel=fp8 multiplies numbers of 8 bits.*W4A8"),
        (QuantSpec(kernel="fp8"), (8, 16), "kernel=fp8 multiplies numbers of 8 bits.*W8A16"),
        (QuantSpec(number_format="e4m3"), (8, 8), None),
        (QuantSpec(number_format="e4m3"), (16, 8), None),
        (QuantSpec(number_format="e4m3"), (8, 16), None),
        (QuantSpec(number_format="e4m3"), (7, 8), "number_format=e4m3 has 8 bits.*W7A8"),
        (QuantSpec(number_format="e4m3"), (8, 4), "number_format=e4m3 has 8 bits.*W8A4"),
    ],
)
def test_e4m3_has_eight_bits(quant: QuantSpec, bits: tuple[int, int], why: str | None) -> None:
    if why is None:
        check_layer(quant, "q_proj", (64, 64), bits)
        return
    with pytest.raises(ConfigError, match=why):
        check_layer(quant, "q_proj", (64, 64), bits)


@pytest.mark.parametrize("kernel", ["int8", "w4a8", "fp8"])
@pytest.mark.parametrize(
    ("knob", "value", "needed"),
    [
        ("rotation", "svd", "rotation=hadamard or none, got svd"),
        ("rotation", "greedy", "rotation=hadamard or none, got greedy"),
        ("act_scale", "static", "act_scale=per_token, got static"),
        ("row_rotation", True, "row_rotation=false, got true"),
        ("smoothing", 0.5, "smoothing=0.0, got 0.5"),
    ],
)
def test_an_integer_kernel_refuses_what_it_cannot_compute(
    kernel: str, knob: str, value: object, needed: str
) -> None:
    spec(**{knob: value})
    with pytest.raises(SpecError, match=f"kernel={kernel} needs {needed}"):
        spec(kernel=kernel, **{knob: value})


@pytest.mark.parametrize(("bits", "fits"), [((4, 8), True), ((8, 16), False), ((16, 8), False)])
def test_an_integer_kernel_takes_at_most_eight_bits(bits: tuple[int, int], fits: bool) -> None:
    quant = QuantSpec(kernel="int8")
    if fits:
        check_layer(quant, "q_proj", (64, 64), bits)
        return
    with pytest.raises(ConfigError, match=rf"'q_proj' has W{bits[0]}A{bits[1]}; use kernel=fake"):
        check_layer(quant, "q_proj", (64, 64), bits)


def test_an_integer_kernel_is_refused_on_a_cpu_where_it_would_run() -> None:
    on_cpu = RuntimeSpec(device="cpu")
    quantized = spec(kernel="w4a8")
    with pytest.raises(SpecError, match=r"kernel=w4a8 needs a CUDA GPU.*triton.*device is cpu"):
        replace(quantized, runtime=on_cpu)
    replace(quantized, runtime=on_cpu, quant=QuantSpec(kernel="w4a8"))  # nothing is quantized
    replace(spec(kernel="fp8"), runtime=on_cpu)


@dataclass(frozen=True)
class Size:
    width: int
    height: int


@dataclass(frozen=True)
class Picture:
    title: str
    size: Size = field(metadata=FLAT)
    facts: dict[str, float | None] = field(metadata=FLAT)


def test_flat_fields_have_their_keys_beside_the_others() -> None:
    picture = Picture("sea", Size(3, 4), {"blue": 0.5, "depth": None})
    data = {"title": "sea", "width": 3, "height": 4, "blue": 0.5, "depth": None}
    assert encode(picture) == data
    assert decode(Picture, data) == picture


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blue": "much"}, r"facts\.blue must be float"),
        ({"width": "wide"}, r"size\.width must be int"),
    ],
)
def test_a_wrong_value_of_a_flat_field_is_named(change: dict[str, object], said: str) -> None:
    data = {"title": "sea", "width": 3, "height": 4, "blue": 0.5}
    with pytest.raises(SpecError, match=said):
        decode(Picture, data | change)
