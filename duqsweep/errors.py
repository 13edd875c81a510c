"""Every error that duqsweep raises on purpose.

DuqsweepError
├── ConfigError            a mistake in what was asked for, found before anything ran; exit code 2
│   └── SpecError          the mistake lies in one record: its value is impossible
├── DispatchError          a launcher (submitit, SLURM) refused or lost a job
└── EvaluationError        a trial cannot be evaluated as specified: the policy's fault, not retried
    └── InfrastructureError   simulator, renderer, driver or node: the machine's fault, retried
"""

from __future__ import annotations


class DuqsweepError(Exception):
    """Base of every error raised on purpose; its text is written for the user."""


class ConfigError(DuqsweepError):
    """A mistake in the configuration. The message names the value, the rule and what is allowed."""


class SpecError(ConfigError):
    """A record (spec, rule, result) holds an impossible value."""


class DispatchError(DuqsweepError):
    """A launcher refused or lost a job."""


class EvaluationError(DuqsweepError):
    """A trial cannot be evaluated as specified."""


class InfrastructureError(EvaluationError):
    """The machine failed (simulator, renderer, driver), not the policy; trying again may help."""
