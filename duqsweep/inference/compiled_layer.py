"""A layer that inductor compiles for a CPU, for inputs of each shape.

As torch.compile does, but nothing is checked in a call except shapes and strides of its inputs: the
layers of a policy do not change. torch.compile's checks, 68 times in a call of the shipped policy,
took a fifth of its time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from duqsweep.inference.cpu_compiler import cpu_options

Compiled = Callable[..., Sequence[Tensor]]  # tensors to tensors


@dataclass(frozen=True)
class Form:
    """Compiled code of a layer for inputs of one shape."""

    code: Compiled
    result: Any  # nested tuples of numbers of the code's results, or one number


# What was compiled in this process. Code takes weights as arguments, so trials share it.
FORMS: dict[Hashable, Form] = {}  # by kind of layer and inputs
CODES: dict[Hashable, Compiled] = {}  # by operations and inputs


class CompiledLayer:
    """Called in place of a layer whose parameters, buffers and settings stay as they are."""

    def __init__(self, layer: nn.Module) -> None:
        """Compile nothing yet.

        Args:
            layer: Maps tensors, in nested tuples, to such. All tensors that it has are parameters
                and buffers; others are refused when it is compiled.
        """
        self._layer = copy.copy(layer)  # the call of the other one may be replaced by this
        self._tensors = {name: tensor.detach() for name, tensor in _tensors(layer)}
        self._weights = tuple(self._tensors.values())
        self._kind = _kind(layer)
        self._forms: dict[Hashable, Form] = {}  # by shapes and strides of the inputs

    def __call__(self, *inputs: Any) -> Any:
        """What the layer gives; the first call with inputs of a shape compiles."""
        given = list(_flat(inputs))
        seen = tuple([(tensor.shape, tensor.stride()) for tensor in given])
        form = self._forms.get(seen)
        if form is None:
            form = self._forms[seen] = self._form(inputs, given)
        return _nested(form.result, form.code(*self._weights, *given))

    def _form(self, inputs: Any, given: list[Tensor]) -> Form:
        structure = _numbered(inputs)
        key = (self._kind, structure, tuple(map(_described, given)))
        if key in FORMS:
            return FORMS[key]
        graph, result = self._traced(structure, given)
        examples = [*self._weights, *given]
        same = (graph.code, tuple(map(_described, examples)))
        if same not in CODES:  # layers with other bits have the same operations
            CODES[same] = torch._inductor.compile(graph, [*examples], options=cpu_options())
        return FORMS.setdefault(key, Form(CODES[same], result))

    def _traced(self, structure: Any, given: list[Tensor]) -> tuple[GraphModule, Any]:
        """Operations on weights and inputs, and the structure of what they give."""
        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, as inductor is

        names, count = list(self._tensors), len(self._tensors)
        found: list[Any] = []

        def run(*tensors: Tensor) -> list[Tensor]:
            state = dict(zip(names, tensors[:count], strict=True))
            inputs = _nested(structure, tensors[count:])
            result = torch.func.functional_call(self._layer, state, inputs)
            found.append(_numbered(result))
            return list(_flat(result))

        graph = make_fx(run, tracing_mode="fake")(*self._weights, *given)
        return graph, found[-1]


def _flat(nested: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, in order."""
    for item in nested if isinstance(nested, tuple) else (nested,):
        if isinstance(item, tuple):
            yield from _flat(item)
        else:
            yield item


def _numbered(nested: Any) -> Any:
    """Nested tuples with the numbers of `_flat` in place of tensors."""
    numbers = iter(range(len(list(_flat(nested)))))

    def number(item: Any) -> Any:
        return tuple(map(number, item)) if isinstance(item, tuple) else next(numbers)

    return number(nested)


def _nested(structure: Any, tensors: Sequence[Tensor]) -> Any:
    """The inverse of `_flat`, with the structure from `_numbered`."""
    if isinstance(structure, tuple):
        return tuple([_nested(item, tensors) for item in structure])
    return tensors[structure]


def _tensors(layer: nn.Module) -> list[tuple[str, Tensor]]:
    return [*layer.named_parameters(), *layer.named_buffers()]


def _described(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _kind(layer: nn.Module) -> Hashable:
    """Everything that decides what a layer computes, but for the values of its tensors."""
    own = vars(nn.Module()).keys() - {"training"}
    modules = tuple(
        (name, type(module), tuple((k, repr(v)) for k, v in vars(module).items() if k not in own))
        for name, module in layer.named_modules()
    )
    return modules, tuple((name, _described(tensor)) for name, tensor in _tensors(layer))
