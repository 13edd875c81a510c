"""The checkpoint that a sweep began with, which every worker must load."""

from __future__ import annotations

from pathlib import Path

from duqsweep import files
from duqsweep.checkpoint.contents import checkpoint_contents
from duqsweep.errors import EvaluationError, InfrastructureError
from duqsweep.spec import PolicySpec


def check_contents(sweep_dir: Path, policy: PolicySpec) -> None:
    """Compare the checkpoint's files on this node with those that the sweep began with.

    A folder without an identity.json has nothing to compare with.

    Raises:
        InfrastructureError: They differ, or one of them cannot be read: the node's fault.
    """
    path = sweep_dir / files.IDENTITY_JSON
    if not path.exists():
        return
    try:
        began = files.read_object(path)["checkpoint"]
        found = checkpoint_contents(policy)
    except (KeyError, TypeError) as error:
        raise InfrastructureError(f"{path} names no checkpoint: it is damaged") from error
    except (OSError, EvaluationError) as error:
        raise InfrastructureError(f"this node cannot read the checkpoint: {error}") from error
    if found != began:
        changed = sorted(name for name in {**began, **found} if began.get(name) != found.get(name))
        name = changed[0]
        raise InfrastructureError(
            f"{policy.checkpoint or policy.name} is not the checkpoint that the sweep began with: "
            f"{name} was {began.get(name, 'missing')}, is {found.get(name, 'missing')} on this "
            "node; restore it, or start a new sweep with name=…"
        )
