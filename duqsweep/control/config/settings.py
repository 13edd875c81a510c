"""The keys that a trial can set, and how their values make a `TrialSpec`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from duqsweep.codec import decode, encode
from duqsweep.control.config.schema import PolicyConfig, QuantConfig, RuntimeConfig, SuiteConfig
from duqsweep.errors import ConfigError
from duqsweep.setting import Scalar, Setting, declared_settings
from duqsweep.spec import LayerRule, PolicySpec, QuantSpec, RuntimeSpec, SuiteSpec, TrialSpec

Settings = Mapping[str, Scalar | None]

INCLUDE = "quant.include"
KERNEL = "quant.kernel"
WEIGHT_BITS = "quant.weight_bits.default"
FIRST_LAST = "quant.weight_bits.first_last"
LAYERS = "quant.weight_bits.layers."  # then a layer's number, or a dotted path
ACT_BITS = "quant.act_bits"
NUM_STEPS = "policy.num_steps"
# What decides which layers are quantized, with how many bits.
SELECTION = (INCLUDE, WEIGHT_BITS, ACT_BITS, FIRST_LAST, LAYERS)

SECTIONS = {
    "quant": QuantConfig,
    "policy": PolicyConfig,
    "runtime": RuntimeConfig,
    "suite": SuiteConfig,
}
_R = TypeVar("_R")


def _declared(prefix: str, section: type) -> Iterator[tuple[str, Setting]]:
    settings = declared_settings(section)
    for name, hint in get_type_hints(section).items():
        if is_dataclass(hint):
            yield from _declared(f"{prefix}.{name}", hint)  # type: ignore[arg-type]
        elif name in settings:
            yield f"{prefix}.{name}", settings[name]


# Every declared setting, and those of a trial; single layers are under `LAYERS` without the dot.
DECLARED = {key: s for name, section in SECTIONS.items() for key, s in _declared(name, section)}
SETTABLE = {key: s for key, s in DECLARED.items() if not s.shared and f"{key}." != LAYERS}


def setting_of(key: str) -> Setting | None:
    """The declaration of a key that a trial can set; None for any other key."""
    if key.startswith(LAYERS) and key != LAYERS:
        return DECLARED[LAYERS.removesuffix(".")]
    return SETTABLE.get(key)


def check_settable(key: str, where: str) -> Setting:
    """The declaration of a key that a trial can set.

    Raises:
        ConfigError: There is no such key, or all trials of a sweep share its value.
    """
    declared = setting_of(key)
    if declared is not None:
        return declared
    inside = [known for known in (*SETTABLE, f"{LAYERS}*") if known.startswith(f"{key}.")]
    if inside:
        raise ConfigError(f"{where}: {key} is a group of keys: set {' or '.join(inside)}")
    raise ConfigError(
        f"{where}: a trial cannot set {key!r}{did_you_mean(key, SETTABLE)}; "
        f"it can set {', '.join(SETTABLE)}, {LAYERS}N; "
        "`python -m duqsweep explain --settings` says what each one does"
    )


def check_value(declared: Setting, key: str, value: object) -> None:
    """Raise ConfigError unless `value` has the type of the setting and is allowed."""
    if type(value) is not declared.kind:
        raise ConfigError(f"{key} must be {declared.kind.__name__}, got {value!r}")
    declared.check(key, value)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to append to a message; empty where nothing known looks like `word`."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


@dataclass(frozen=True)
class Base:
    """What every trial of a sweep starts from."""

    policy: PolicySpec
    runtime: RuntimeSpec
    suite: SuiteSpec
    rules: tuple[LayerRule, ...]  # tried before the rules of quant.include
    includes: Mapping[str, tuple[str, ...]]  # named rule → regexes
    settings: Settings  # settable key → value
    layers: Mapping[str, tuple[int, int]]  # linear layers by name, from checkpoint.sizes
    horizon: int  # actions that the policy predicts at once
    distilled_steps: tuple[int, ...]  # of the policy's checkpoint; empty: any number of steps
    cores: int  # of a trial's job

    def spec(self, changes: Settings) -> TrialSpec:
        """The specification with some settings changed.

        Raises:
            SpecError: A value has the wrong type or is impossible.
        """
        settings = {**self.settings, **changes}
        rules = [*map(encode, self.rules), *self._included(settings)]
        layer_bits = self._layer_bits(settings, [rule["include"] for rule in rules])
        quant = {**_of_a_trial(QuantSpec, "quant", settings), "rules": rules}
        return TrialSpec(
            policy=_changed(self.policy, "policy", settings),
            quant=decode(QuantSpec, {**quant, "layer_bits": layer_bits}, "quant"),
            runtime=_changed(self.runtime, "runtime", settings),
            suite=_changed(self.suite, "suite", settings),
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


def _of_a_trial(record: type, section: str, settings: Settings) -> dict[str, Any]:
    """The values of those settings of `record` that a trial can set."""
    names = (name for name, declared in declared_settings(record).items() if not declared.shared)
    return {name: settings[f"{section}.{name}"] for name in names}


def _changed(record: _R, section: str, settings: Settings) -> _R:
    """The record with a trial's settings."""
    values = {**encode(record), **_of_a_trial(type(record), section, settings)}
    return decode(type(record), values, section)


def stacks(layers: Iterable[str], includes: Iterable[str]) -> Mapping[str, int]:
    """Stacks of layers that some regex reaches: path up to the number → how many layers it has."""
    return _stacks(tuple(layers), tuple(includes))


@lru_cache(maxsize=64)  # each point of a space asks, and few of them ask anything new
def _stacks(layers: tuple[str, ...], includes: tuple[str, ...]) -> Mapping[str, int]:
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
