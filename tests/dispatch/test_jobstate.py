"""How SLURM's states are read; the lines are those of squeue 22.05 and sacct 22.05."""

from __future__ import annotations

from pathlib import Path

import pytest

from duqsweep.control.dispatch.jobstate import Row, classify, read_rows
from duqsweep.mailbox import Heartbeat, Mailbox

ALIVE = Heartbeat(4, 5, "host", "boot pid:[1]", None, "12", 1.5e9, None)


@pytest.fixture
def box(tmp_path: Path) -> Mailbox:
    (tmp_path / "job").mkdir()
    return Mailbox(tmp_path)


def test_rows_are_found_by_name_and_the_latest_wins() -> None:
    answer = (
        "27|RUNNING|n1|None|duqsweep-s-0001-a\n"
        "31|PENDING||Priority|a name | with bars\n"
        "1369_0|CANCELLED by 0|n2|None|array\n"
        "90|PENDING||Resources|duqsweep-s-0001-a\n"
        "\n"
    )
    rows = read_rows(answer)
    assert rows["duqsweep-s-0001-a"] == Row("90", "PENDING", "", "Resources")
    assert rows["a name | with bars"].job_id == "31"
    assert rows["array"].state == "CANCELLED"


@pytest.mark.parametrize(
    "state",
    ["PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD",
     "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "A_STATE_OF_NEXT_YEAR"],
)  # fmt: skip
def test_a_job_lives_in_every_state_that_is_not_final(box: Mailbox, state: str) -> None:
    assert classify(Row("1", state, "n1", "None"), box).state not in ("ended", "absent")


@pytest.mark.parametrize(
    ("state", "kind"),
    [("NODE_FAIL", "node"), ("BOOT_FAIL", "node"), ("OUT_OF_MEMORY", "oom"),
     ("TIMEOUT", "timeout"), ("DEADLINE", "timeout"), ("PREEMPTED", "preempted"),
     ("CANCELLED", "cancelled"), ("FAILED", "lost"), ("COMPLETED", "lost")],
)  # fmt: skip
def test_final_states_are_told_apart(box: Mailbox, state: str, kind: str) -> None:
    box.set_alive(ALIVE)
    view = classify(Row("1", state, "n1", "None"), box)
    assert (view.state, view.kind) == ("ended", kind)
    assert state in view.message


def test_a_job_that_nobody_knows_is_lost(box: Mailbox) -> None:
    view = classify(None, box)
    assert (view.state, view.kind) == ("absent", "lost")


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [("PENDING", "Priority", "queued"), ("PENDING", "Resources", "queued"),
     ("PENDING", "JobHeldUser", "held"), ("PENDING", "JobHeldAdmin", "held"),
     ("PENDING", "launch failed requeued held", "held"), ("REQUEUE_HOLD", "None", "held"),
     ("SUSPENDED", "None", "suspended"), ("COMPLETING", "None", "running"),
     ("RUNNING", "None", "running"), ("A_STATE_OF_NEXT_YEAR", "None", "running")],
)  # fmt: skip
def test_jobs_that_wait_are_told_apart(
    box: Mailbox, state: str, reason: str, expected: str
) -> None:
    view = classify(Row("7", state, "n1", reason), box)
    assert (view.state, view.reason, view.job_id) == (expected, reason, "7")


@pytest.mark.parametrize(
    "line",
    ["slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.batch.",
     "slurmstepd: error: StepId=7.batch exceeded memory limit (25 > 20), being killed"],
)  # fmt: skip
def test_want_of_memory_is_read_from_the_jobs_output(box: Mailbox, line: str) -> None:
    (box.folder / "job" / "5_0_log.err").write_text(f"one\n{line}\n")
    box.set_alive(ALIVE)
    view = classify(Row("5", "FAILED", "n1", "NonZeroExitCode"), box)
    assert view.kind == "oom"
    assert line in view.message


@pytest.mark.parametrize("state", ["FAILED", "COMPLETED", "OUT_OF_MEMORY"])
def test_a_job_that_ends_before_the_workers_first_word_could_not_be_set_up(
    box: Mailbox, state: str
) -> None:
    assert classify(Row("1", state, "n1", "NonZeroExitCode"), box).kind == "setup"
