"""A trial as a shell script of the variables that the openpi DuQuant prototype reads."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from duqsweep.errors import ConfigError
from duqsweep.spec import (
    FEW_BIT_KERNELS,
    FULL_PRECISION,
    UNIFORM,
    QuantSpec,
    Trial,
    numbers_of,
)

_NUMBERED = re.compile(r"(.*\blayers)\.(\d+)\.(.*)")


def as_openpi_env(
    trial: Trial, sweep: str, bits: Mapping[str, tuple[int, int]], layers: Collection[str]
) -> str:
    """The script.

    One regex reaches the quantized layers and no other. Layers of other bits than most are named in
    full, because the prototype compares whole names. The pack folder carries the fingerprint,
    because the prototype would load the packs of other settings.

    Args:
        trial: The trial.
        sweep: Name of its sweep.
        bits: Its quantized layers → weight bits, activation bits.
        layers: Names of all layers that could be quantized.

    Raises:
        ConfigError: The prototype has no variable for one of the settings.
    """
    spec = trial.spec
    lines = [
        "#!/usr/bin/env bash",
        f"# Trial {trial.number} of duqsweep's sweep {sweep}, fingerprint {trial.fingerprint}.",
        "# Denoising steps have no variable: give sample_actions "
        f"num_steps={spec.policy.num_steps}.",
    ]
    if spec.policy.num_steps > 1 and spec.policy.schedule != UNIFORM.kind:
        lines.append(
            f"# Measured with schedule={spec.policy.schedule}; openpi's steps are {UNIFORM.kind}: "
            "expect another success rate."
        )
    if bits:
        variables = _variables(spec.quant, bits, layers, trial.fingerprint)
        lines += _differences(spec.quant)
        lines += [f"export OPENPI_DUQUANT_{k}={shlex.quote(v)}" for k, v in variables.items()]
    else:
        lines.append("# Nothing is quantized: no OPENPI_DUQUANT_ variable may be set.")
    switch = "unset" if spec.runtime.compile else "export"
    value = "" if spec.runtime.compile else "=1"
    names = ("OPENPI_DISABLE_TORCH_COMPILE", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")
    lines += [f"{switch} {name}{value}" for name in names]
    return "\n".join(lines) + "\n"


def layers_regex(chosen: Iterable[str], layers: Collection[str]) -> str:
    """One regex that matches the names in `chosen` and none of the other `layers`, as a whole.

    It begins with `.*` and ends with `$`, so that `match` and `search` find the same.
    """
    all_of = _numbers(layers)
    by_numbers: dict[tuple[str, tuple[int, ...] | None], list[str]] = defaultdict(list)
    for (stack, rest), numbers in _numbers(chosen).items():
        whole = bool(numbers) and numbers == all_of[stack, rest]
        by_numbers[stack, None if whole else tuple(sorted(numbers))].append(rest)
    parts = [
        re.escape(stack) + _number(numbers) + _either(map(re.escape, sorted(rests)))
        for (stack, numbers), rests in by_numbers.items()
    ]
    return f".*{_either(parts)}$"


def _numbers(names: Iterable[str]) -> dict[tuple[str, str], set[int]]:
    """What stands before and after a layer's number → the numbers; none for other names."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match:
            found[match[1], match[3]].add(int(match[2]))
        else:
            found["", name] = set()
    return found


def _number(numbers: tuple[int, ...] | None) -> str:
    if numbers == ():
        return ""
    return r"\.\d+\." if numbers is None else rf"\.{_either(map(str, numbers))}\."


def _either(words: Iterable[str]) -> str:
    listed = list(words)
    return listed[0] if len(listed) == 1 else f"({'|'.join(listed)})"


def _variables(
    quant: QuantSpec,
    bits: Mapping[str, tuple[int, int]],
    layers: Collection[str],
    fingerprint: str,
) -> dict[str, str]:
    act_bits = {act for _, act in bits.values()}
    if len(act_bits) > 1:
        raise ConfigError(f"the prototype has one number of activation bits, this trial {act_bits}")
    act = act_bits.pop()
    weights = {name: _off(weight) for name, (weight, _) in bits.items()}
    ((most, _),) = Counter(weights.values()).most_common(1)
    others = ",".join(f"{name}:{weight}" for name, weight in weights.items() if weight != most)
    return {
        "SCOPE": "paligemma_with_expert.",
        "INCLUDE": layers_regex(bits, layers),
        "WBITS_DEFAULT": str(most),
        **({"WBITS": others} if others else {}),
        "ABITS": str(_off(act)),
        "BLOCK": str(quant.block_size),
        "PERMUTE": str(int(quant.permutation != "none")),
        "ROW_ROT": "restore" if quant.row_rotation else "0",
        "ACT_PCT": str(quant.act_percentile),
        "PACKDIR": f"./duquant_packed/{fingerprint}",
    }


def _off(bits: int) -> int:
    """The prototype's 0 for full precision; its 16 would round weights to zero."""
    return 0 if bits == FULL_PRECISION else bits


def _differences(quant: QuantSpec) -> list[str]:
    """Comments where the prototype cannot do what was measured."""
    measured = {
        "rotation": (quant.rotation, "svd"),
        "permutation": (quant.permutation, "prototype"),
        "act_scale": (quant.act_scale, "static"),
        "number_format": (numbers_of(quant), "integer"),
    }
    lines = [
        f"# Measured with {name}={ours}; the prototype only has {its}: expect another success rate."
        for name, (ours, its) in measured.items()
        if ours not in (its, "none")
    ]
    if quant.kernel in FEW_BIT_KERNELS:
        lines.append(f"# Measured with kernel={quant.kernel}; the prototype simulates, and slowly.")
    return lines
