"""Functions of tensors as operators of torch, which torch.compile calls as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

LIBRARY = torch.library.Library("duqsweep", "FRAGMENT")


def operator(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """`duqsweep::NAME` of a function that changes none of its arguments and needs no gradient.

    `torch.library.custom_op` does the same, but its operators import torch's compiler when they are
    first called, compiled or not, and that takes 2 s.
    """
    name = function.__name__
    schema = torch.library.infer_schema(function, mutates_args=())
    LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    return cast("Callable[Given, Result]", getattr(torch.ops.duqsweep, name).default)


def fake_of(made: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorates what makes results of an operator's shapes, without values, for the compiler."""
    return cast(
        "Callable[[Function], Function]",
        torch.library.register_fake(cast(Any, made), lib=LIBRARY),
    )
