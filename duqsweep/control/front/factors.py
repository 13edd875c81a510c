"""What makes a trial fast: its speed-up as a product, each factor timed without the next ones.

From the unquantized, eager policy with its default steps to the trial, one thing changes at a time:
the denoising steps, compilation, quantization, and how many actions of a prediction are executed.
The form with all but the quantization is the trial's unquantized twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from duqsweep.control.trials.reader import TrialView
from duqsweep.spec import PolicySpec, RuntimeSpec, TrialSpec

TWINS_DIR = "twins"  # in the sweep's folder, laid out as a sweep's folder; see control/twins.py


@dataclass(frozen=True)
class SpeedupFactors:
    """The speed-up of an episode over the unquantized, eager policy, as a product.

    Below 1 a factor costs time.
    """

    steps: float  # of the denoising steps, eager and unquantized
    compile: float  # of compilation, unquantized
    quantization: float
    replan: float  # of fewer policy calls in an episode
    twin: str  # where the unquantized twin was timed, e.g. "trial 1"

    @property
    def call(self) -> float:
        """The speed-up of one call: the trial's `speedup`."""
        return self.steps * self.compile * self.quantization

    @property
    def episode(self) -> float:
        """The speed-up of an episode of nominal length."""
        return self.call * self.replan


@dataclass(frozen=True)
class Form:
    """An unquantized policy as it may be run and timed."""

    policy: PolicySpec
    runtime: RuntimeSpec

    @classmethod
    def twin(cls, spec: TrialSpec) -> Form:
        """The trial without its quantization."""
        return cls(spec.policy, spec.runtime)

    @property
    def eager(self) -> Form:
        """The same, not compiled."""
        return replace(self, runtime=replace(self.runtime, compile=False))

    @property
    def is_reference(self) -> bool:
        """Whether it is what every trial is timed beside."""
        called = (self.policy.num_steps, self.policy.schedule, self.policy.reuse_images)
        plainly = called == (PolicySpec.num_steps, PolicySpec.schedule, PolicySpec.reuse_images)
        return plainly and not self.runtime.compile


@dataclass(frozen=True)
class Timing:
    """How fast an unquantized form is."""

    speedup: float  # of a call, over the unquantized, eager policy beside it
    where: str  # it was timed, e.g. "trial 1"
    parts_ms: dict[str, float]  # as timed there
    reference_call_ms: float  # beside it


class Timings:
    """The unquantized forms that were timed: by trials of the sweep, or as twins of others."""

    def __init__(self, views: Sequence[TrialView], twins: Sequence[TrialView] = ()) -> None:
        """From a sweep's trials, and those of its folder `TWINS_DIR`."""
        self._known: dict[Form, Timing] = {}
        for where, several in (("trial", views), ("twin", twins)):
            for view in several:
                if view.vitals is not None and not view.vitals.layers_quantized:
                    timing = _timing(view, f"{where} {view.number}")
                    self._known.setdefault(Form.twin(view.trial.spec), timing)

    def of(self, form: Form) -> Timing | None:
        """The timing of a form; None where it was not timed."""
        return self._known.get(form)

    def missing(self, spec: TrialSpec) -> Iterator[Form]:
        """What must be timed before `factors` of this trial are known."""
        twin = Form.twin(spec)
        for form in dict.fromkeys((twin.eager, twin)):
            if not form.is_reference and form not in self._known:
                yield form


def _timing(view: TrialView, where: str) -> Timing:
    vitals = view.vitals
    assert vitals is not None
    return Timing(vitals.speedup, where, vitals.parts_ms, vitals.reference_call_ms)


def factors(view: TrialView, timings: Timings, reference_calls: int) -> SpeedupFactors | None:
    """The factors of a trial; None where they are not known, or it is the reference itself.

    Args:
        view: The trial.
        timings: Of the sweep.
        reference_calls: Policy calls of an episode of nominal length of the reference.
    """
    vitals, twin = view.vitals, Form.twin(view.trial.spec)
    if vitals is None:
        return None
    own = None if vitals.layers_quantized else _timing(view, "itself, not quantized")
    if own is not None and twin.is_reference:
        return None
    timed = own or _reference_or_timed(twin, timings)
    eager = timed if twin == twin.eager else _reference_or_timed(twin.eager, timings)
    if timed is None or eager is None:
        return None
    return SpeedupFactors(
        steps=eager.speedup,
        compile=timed.speedup / eager.speedup,
        quantization=vitals.speedup / timed.speedup,
        replan=reference_calls / view.trial.spec.suite.nominal_calls,
        twin=timed.where,
    )


def _reference_or_timed(form: Form, timings: Timings) -> Timing | None:
    """The timing of a form; the reference is timed beside every trial, so it has 1."""
    return Timing(1.0, "the reference", {}, 1.0) if form.is_reference else timings.of(form)
