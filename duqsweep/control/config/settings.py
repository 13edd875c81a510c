"""The keys that a trial may set, and how their values make a `TrialSpec`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from duqsweep.codec import encode
from duqsweep.control.config.grammar import Scalar
from duqsweep.errors import ConfigError
from duqsweep.spec import LayerRule, PolicySpec, ProtocolSpec, RuntimeSpec, TrialSpec

Settings = Mapping[str, Scalar | None]

_QUANT_FIELDS: dict[str, type] = {  # names of spec.QuantSpec
    "rotation": str,
    "block_size": int,
    "permutation": str,
    "row_rotation": bool,
    "weight_scale": str,
    "weight_group_size": int,
    "act_scale": str,
    "act_percentile": float,
    "smoothing": float,
    "kernel": str,
}
INCLUDE = "quant.include"
KERNEL = "quant.kernel"
WEIGHT_BITS = "quant.weight_bits.default"
FIRST_LAST = "quant.weight_bits.first_last"
LAYERS = "quant.weight_bits.layers."  # then a layer's number, or a dotted path
ACT_BITS = "quant.act_bits"
NUM_STEPS = "policy.num_steps"
COMPILE = "runtime.compile"
THREADS = "runtime.threads"
REPLAN_STEPS = "suite.replan_steps"

SETTABLE: dict[str, type] = {
    INCLUDE: str,
    WEIGHT_BITS: int,
    FIRST_LAST: int,
    ACT_BITS: int,
    **{f"quant.{name}": kind for name, kind in _QUANT_FIELDS.items()},
    NUM_STEPS: int,
    COMPILE: bool,
    THREADS: int,
    REPLAN_STEPS: int,
}


def check_settable(key: str, where: str) -> type:
    """The type of a key that a trial may set.

    Raises:
        ConfigError: There is no such key, or all trials of a sweep share its value.
    """
    if key in SETTABLE:
        return SETTABLE[key]
    if key.startswith(LAYERS) and key != LAYERS:
        return int
    inside = [known for known in (*SETTABLE, f"{LAYERS}*") if known.startswith(f"{key}.")]
    if inside:
        raise ConfigError(f"{where}: {key} is a group of keys: set {' or '.join(inside)}")
    raise ConfigError(
        f"{where}: a trial cannot set {key!r}{did_you_mean(key, SETTABLE)}; "
        f"it can set {', '.join(SETTABLE)}, {LAYERS}N"
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message; empty where nothing known looks like `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


@dataclass(frozen=True)
class Base:
    """What every trial of a sweep starts from."""

    policy: PolicySpec
    runtime: RuntimeSpec
    protocol: ProtocolSpec
    rules: tuple[LayerRule, ...]  # tried before the rules of quant.include
    includes: Mapping[str, tuple[str, ...]]  # named rule → regexes
    settings: Settings  # settable key → value
    layers: Mapping[str, tuple[int, int]]  # linear layers by name, from checkpoint.sizes
    horizon: int  # actions that the policy predicts at once
    cores: int  # of a trial's job

    def spec(self, changes: Settings) -> TrialSpec:
        """The specification with some settings changed.

        Raises:
            SpecError: A value has the wrong type or is impossible.
        """
        settings = {**self.settings, **changes}
        policy = {**encode(self.policy), "num_steps": settings[NUM_STEPS]}
        runtime = {
            **encode(self.runtime),
            "compile": settings[COMPILE],
            "threads": settings[THREADS],
        }
        protocol = {**encode(self.protocol), "replan_steps": settings[REPLAN_STEPS]}
        rules = [*map(encode, self.rules), *self._included(settings)]
        quant = {
            "rules": rules,
            "layer_bits": self._layer_bits(settings, [rule["include"] for rule in rules]),
            **{name: settings[f"quant.{name}"] for name in _QUANT_FIELDS},
        }
        return TrialSpec.from_json(
            {"policy": policy, "quant": quant, "runtime": runtime, "protocol": protocol}
        )

    def _included(self, settings: Settings) -> list[dict[str, Any]]:
        include = settings[INCLUDE]
        if not isinstance(include, str) or not include:
            raise ConfigError(f"{INCLUDE} must be a named rule or a regex, got {include!r}")
        bits = {"weight_bits": settings[WEIGHT_BITS], "act_bits": settings[ACT_BITS]}
        return [{"include": regex, **bits} for regex in self.includes.get(include, (include,))]

    def _layer_bits(self, settings: Settings, includes: list[str]) -> list[dict[str, Any]]:
        """First and last layers, then single layers: of entries that match, the last one wins."""
        found = []
        if settings[FIRST_LAST] is not None:
            for stack, depth in stacks(self.layers, includes).items():
                for number in sorted({0, depth - 1}):
                    path = f"{stack}.{number}"
                    found.append({"path": path, "weight_bits": settings[FIRST_LAST]})
        for key, bits in settings.items():
            if key.startswith(LAYERS):
                name = key.removeprefix(LAYERS)
                path = f"layers.{name}" if name.isdigit() else name
                found.append({"path": path, "weight_bits": bits})
        return found if includes else []


def stacks(layers: Iterable[str], includes: Iterable[str]) -> dict[str, int]:
    """Stacks of layers that some regex reaches: path up to the number → how many layers it has."""
    patterns = [_compiled(include) for include in includes]
    depths: dict[str, int] = {}
    reached: set[str] = set()
    for name in layers:
        found = re.match(r"(.*\blayers)\.(\d+)\.", name)
        if found:
            stack, number = found[1], int(found[2])
            depths[stack] = max(depths.get(stack, 0), number + 1)
            if any(pattern.search(name) for pattern in patterns):
                reached.add(stack)
    return {stack: depth for stack, depth in depths.items() if stack in reached}


def _compiled(include: str) -> re.Pattern[str]:
    try:
        return re.compile(include)
    except re.error as error:
        message = f"{INCLUDE}: {include!r} is not a regular expression: {error}"
        raise ConfigError(message) from error
