"""The forms that can be measured, by name; files named `*_forms.py` register theirs with `form`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from duqsweep.spec import QuantSpec
from latency.bench import Bench

Call = Callable[[], Tensor]
SCOPES = ("expert", "policy", "prefix", "vision")


@dataclass(frozen=True)
class Built:
    """A form ready to be called.

    The call returns actions, (horizon, action_dim); of scope "prefix" the last layer's keys, of
    scope "vision" the image tokens, both shaped as the reference's up to leading ones.
    """

    call: Call
    weights: Mapping[str, object]  # part of the policy → the modules or tensors the call reads


@dataclass(frozen=True)
class Form:
    """How to build a form, and its reference."""

    name: str  # scope, then number format, then how it runs
    make: Callable[[Bench], Built]
    quant: QuantSpec | None  # of the eager reference, kernel `fake`; None: unquantized
    integer: bool  # multiplies codes: integers, or numbers of e4m3
    gpu_only: bool
    first_horizon_only: bool

    @property
    def scope(self) -> str:
        """How much of the policy runs: one of `SCOPES`."""
        return self.name.partition("_")[0]


FORMS: dict[str, Form] = {}


def form(
    name: str,
    quant: QuantSpec | None = None,
    *,
    integer: bool = False,
    gpu_only: bool = False,
    first_horizon_only: bool = False,
) -> Callable[[Callable[[Bench], Built]], Callable[[Bench], Built]]:
    """Decorator: register the function as the builder of form `name`; see `Form`."""
    if name.partition("_")[0] not in SCOPES or name in FORMS:
        raise ValueError(f"form {name!r}: scope not among {SCOPES}, or registered twice")

    def register(make: Callable[[Bench], Built]) -> Callable[[Bench], Built]:
        FORMS[name] = Form(name, make, quant, integer, gpu_only, first_horizon_only)
        return make

    return register
