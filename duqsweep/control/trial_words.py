"""The words of a command line that describe one trial again, whatever its sweep had set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from duqsweep.control.config.settings import LAYERS, Base
from duqsweep.control.config.sweep_config import compose
from duqsweep.setting import Scalar, declared_settings
from duqsweep.spec import LayerRule, Trial

# What a configuration must have; without episodes, for those that a suite lacks.
_ALONE = (
    "name=words",
    "enqueue=[reference]",
    "budget.episodes_per_trial=0",
    "objectives=[{name: call_ms}]",
)
_PATHS = {"policy": ("checkpoint", "tokenizer"), "suite": ("assets", "pro_files")}


@dataclass(frozen=True)
class TrialWords:
    """A trial as overrides of the shipped configuration."""

    shared: tuple[str, ...]  # policy, suite, and what all trials of the sweep have
    settings: Mapping[str, Scalar | None]  # settable key → value; what is not the default

    @property
    def overrides(self) -> list[str]:
        """All words, for `evaluate`; not yet quoted for a shell."""
        return [*self.shared, *(_word(key, value) for key, value in self.settings.items())]


def trial_words(trial: Trial, base: Base) -> TrialWords:
    """The words that give this trial its fingerprint again.

    Args:
        trial: Of a sweep.
        base: What that sweep's trials start from.
    """
    groups = tuple(_groups(base))
    plain = _plain(groups)
    settings = {
        key: value
        for key, value in {**base.settings, **trial.params}.items()
        if key in trial.params or plain.settings.get(key) != value
    }
    return TrialWords((*groups, *_differences(base, plain), *_rules(base.rules)), settings)


@cache
def _plain(groups: tuple[str, ...]) -> Base:
    """What trials start from with this policy and suite alone."""
    return compose([*_ALONE, *groups]).base


def _word(key: str, value: Scalar | None) -> str:
    added = "+" if key.startswith(LAYERS) else ""  # no layer has bits of its own by default
    return f"{added}{key}={text(value)}"


def text(value: object) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _groups(base: Base) -> Iterator[str]:
    yield f"policy={base.policy.name}"
    yield f"suite={base.suite.name}"
    for section, names in _PATHS.items():
        for name in names:
            value = getattr(getattr(base, section), name)
            if value is not None:
                yield f"{section}.{name}={value}"


def _differences(base: Base, plain: Base) -> Iterator[str]:
    """What all trials share and is not as the chosen policy and suite have it."""
    for section in ("policy", "runtime", "suite"):
        ours, theirs = getattr(base, section), getattr(plain, section)
        for name, declared in declared_settings(type(ours)).items():
            value = getattr(ours, name)
            if declared.shared and value != getattr(theirs, name):
                yield f"{name if name == 'seed' else f'{section}.{name}'}={text(value)}"


def _rules(rules: tuple[LayerRule, ...]) -> Iterator[str]:
    if rules:
        each = (
            f"{{include: '{rule.include}', weight_bits: {rule.weight_bits}, "
            f"act_bits: {rule.act_bits}}}"
            for rule in rules
        )
        yield f"quant.rules=[{', '.join(each)}]"
