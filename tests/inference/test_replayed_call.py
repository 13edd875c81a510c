"""A replayed policy does what the eager one does, to the bit, and its layers' hooks see it all."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pi05_inputs import INSTRUCTIONS, noise_of, seen
from torch import Tensor

from duqsweep.checkpoint.sizes import linear_layers
from duqsweep.inference import replayed_call
from duqsweep.inference.replayed_call import Captured, ReplayedCall, replayed
from duqsweep.kernels.e4m3_linear import device_reason
from duqsweep.policy.called_policy import CalledPolicy
from duqsweep.policy.load import load_policy
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.policy.random_pi05 import RandomPi05, small_sizes, write_random
from duqsweep.quant.calibrate import LayerStats, calibrate
from duqsweep.quant.freeze import freeze
from duqsweep.quant.select import select_layers
from duqsweep.seams import Observation, Policy
from duqsweep.spec import LayerRule, PolicySpec, QuantSpec

Case = tuple[Observation, NDArray[np.float32]]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_GPU = (pytest.mark.gpu, pytest.mark.skipif(DEVICE == "cpu", reason="integer kernels need a GPU"))
WITHOUT_E4M3 = device_reason(torch.device(DEVICE))
HAS_E4M3 = pytest.mark.skipif(WITHOUT_E4M3 is not None, reason=str(WITHOUT_E4M3))


class Repeated(Captured):
    """Where there are no graphs: what a graph does, i.e. the same on the same memory."""

    def __init__(
        self, function: Callable[..., Any], given: Sequence[Tensor], stream: Any, pool: Any
    ) -> None:
        self.given = [tensor.clone() for tensor in given]
        self.function = function
        self.result = function(*self.given)

    def replay(self) -> None:
        for place, value in zip(flat(self.result), flat(self.function(*self.given)), strict=True):
            place.copy_(value)


class Nothing:
    """A stream or an event where everything is done at once."""

    def __init__(self, device: object = None) -> None:
        pass

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True

    def wait_stream(self, other: object) -> None:
        pass


def flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [t for pair in result for t in pair]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Pi05Policy:
    folder = tmp_path_factory.mktemp("pi05")
    write_random(folder, RandomPi05(small_sizes()))
    return load_policy(PolicySpec("pi05_libero", str(folder), num_steps=3), DEVICE)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pi05Policy], Policy]:
    """`replayed`, which a CPU only pretends."""
    if DEVICE == "cuda":
        return replayed
    monkeypatch.setattr(replayed_call, "Captured", Repeated)
    for name in ("Stream", "Event"):
        monkeypatch.setattr(torch.cuda, name, Nothing)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)

    def pretend(policy: Pi05Policy) -> Policy:
        assert replayed(policy) is policy
        return CalledPolicy(policy.frontend, policy.num_steps, ReplayedCall(policy.call))

    return pretend


@pytest.fixture
def quick(policy: Pi05Policy, quickly: Callable[[Pi05Policy], Policy]) -> Policy:
    return quickly(policy)


def test_actions_are_equal_to_the_bit_at_every_shape_and_in_any_order(
    policy: Pi05Policy, quick: Policy
) -> None:
    cases = [
        (seen(INSTRUCTIONS[i % 2], i, side), noise_of(policy, i))
        for i in range(6)
        for side in (224, 256)
    ]
    expected = [policy.act_normalised(*case) for case in cases]
    for case, actions in [*zip(cases, expected, strict=True)] * 2:
        assert np.array_equal(quick.act_normalised(*case), actions)


def overlapped(quick: Policy, cases: Sequence[Case]) -> list[NDArray[np.float64]]:
    """What two calls at a time give, each waited for before the next but one begins."""
    begun = [quick.begin(*case) for case in cases[:2]]
    found = []
    for later in [*cases[2:], None, None]:
        found.append(begun.pop(0).wait())
        if later is not None:
            begun.append(quick.begin(*later))
    return found


def test_calls_that_overlap_are_equal_to_the_bit(policy: Pi05Policy, quick: Policy) -> None:
    assert quick.calls_at_once == 2
    cases = [(seen(INSTRUCTIONS[i % 2], i), noise_of(policy, i)) for i in range(8)]
    expected = [policy.act(*case) for case in cases]
    for _ in range(2):  # the first time, some of them are captured
        assert np.array_equal(overlapped(quick, cases), expected)


def test_calls_that_are_waited_for_are_captured_once(policy: Pi05Policy, quick: Policy) -> None:
    case = (seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    for _ in range(3):
        quick.act(*case)
    call = quick.call  # type: ignore[attr-defined]
    assert [len(lane._captured) for lane in call._lanes] == [3, 0]


def test_what_was_captured_is_freed_with_the_policy(
    policy: Pi05Policy, quickly: Callable[[Pi05Policy], Policy]
) -> None:
    quick = quickly(policy)
    quick.act(seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    captured = weakref.ref(next(iter(quick.call._lanes[0]._captured.values())))  # type: ignore[attr-defined]
    gc.disable()  # at once, without a search for cycles
    try:
        del quick
        assert captured() is None
    finally:
        gc.enable()


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="a CPU holds no graphs")
def test_one_replay_after_the_other_takes_no_more_memory(policy: Pi05Policy) -> None:
    cases = [(seen(INSTRUCTIONS[i % 2], i), noise_of(policy, i)) for i in range(4)]
    held = []
    for _ in range(3):
        quick = replayed(policy)
        overlapped(quick, cases)
        del quick
        held.append(torch.cuda.memory_allocated())
    assert held[2] == held[1] == held[0]


EVERY_LAYER = (LayerRule(r"_proj$|fc[12]$", 4, 8),)
FP8 = (LayerRule(r"_proj$|fc[12]$", 8, 8),)


@pytest.mark.parametrize(
    "quant",
    [
        pytest.param(QuantSpec(EVERY_LAYER, kernel="fake"), id="fake"),
        pytest.param(QuantSpec(EVERY_LAYER, kernel="loop"), id="loop"),
        pytest.param(
            QuantSpec(EVERY_LAYER, smoothing=0.5, row_rotation=True, act_scale="static"),
            id="every stage",
        ),
        pytest.param(QuantSpec(EVERY_LAYER, kernel="int8"), id="int8", marks=ON_GPU),
        pytest.param(QuantSpec(EVERY_LAYER, kernel="w4a8"), id="w4a8", marks=ON_GPU),
        pytest.param(QuantSpec(FP8, kernel="fp8"), id="fp8", marks=HAS_E4M3),
    ],
)
def test_quantized_layers_are_equal_to_the_bit_too(
    policy: Pi05Policy, quickly: Callable[[Pi05Policy], Policy], quant: QuantSpec
) -> None:
    cases = [(seen(INSTRUCTIONS[i % 2], i), noise_of(policy, i)) for i in range(6)]

    def run() -> None:
        for case in cases[:2]:
            policy.act(*case)

    bits = select_layers(quant, linear_layers(small_sizes()))
    quantized = policy.copy(policy.num_steps)
    stats = calibrate(policy.module, bits, quant, run)
    freeze(quantized.module, bits, quant, stats, None, "random")
    expected = [quantized.act(*case) for case in cases]
    assert not np.array_equal(expected[0], policy.act(*cases[0]))
    quick = quickly(quantized)
    for _ in range(2):
        assert np.array_equal(overlapped(quick, cases), expected)


def test_what_is_timed_and_counted_is_the_eager_call(policy: Pi05Policy, quick: Policy) -> None:
    case = (seen(INSTRUCTIONS[0], 0), noise_of(policy, 0))
    assert quick.time_parts(*case).keys() == {"vision", "llm", "dit"}
    assert quick.launches(*case) == policy.launches(*case)
    assert all(a is b for a, b in zip(quick.weights(), policy.weights(), strict=True))
    assert not any(lane._captured for lane in quick.call._lanes)  # type: ignore[attr-defined]


def test_a_policy_that_keeps_features_of_images_is_called_as_it_is(policy: Pi05Policy) -> None:
    keeping = policy.copy(policy.num_steps, reuse_images=True)
    assert replayed(keeping) is keeping


def test_calibration_finds_the_same_maxima(policy: Pi05Policy, quick: Policy) -> None:
    watched = dict.fromkeys(linear_layers(small_sizes()), (2, 2))

    def statistics(acting: Policy) -> dict[str, LayerStats]:
        def run() -> None:
            for i in range(6):
                acting.act(seen(INSTRUCTIONS[i % 2], i), noise_of(acting, i))

        return calibrate(policy.module, watched, QuantSpec(), run)

    expected, found = statistics(policy), statistics(quick)
    assert expected.keys() == found.keys() == watched.keys()
    assert all(torch.equal(found[name].act_max, expected[name].act_max) for name in watched)
