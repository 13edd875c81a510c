"""The result of `compile_policy`."""

from __future__ import annotations

from duqsweep.policy.called_policy import CalledPolicy


class CompiledPolicy(CalledPolicy):
    """A fast `seams.Policy`, whose layers can no longer be replaced."""
