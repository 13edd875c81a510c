"""The unit of work as the control side names it."""

from duqsweep.assignment import Assignment, Ended, Failure, FailureKind, failure

__all__ = ["Assignment", "Ended", "Failure", "FailureKind", "failure"]
