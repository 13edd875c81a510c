"""SLURM refuses, does not answer, or answers oddly, while a sweep runs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from light_lab import Lab, mailboxes, wait_for_ends, wait_until
from slurm_lab import SlurmLab
from wrapped import Wrapped

from duqsweep.control.config.schema import LauncherConfig
from duqsweep.control.dispatch import evidence, jobstate, pool
from duqsweep.control.dispatch.dispatcher import Assignment, Dispatcher, Ended, open_dispatcher
from duqsweep.control.dispatch.evidence import QUIET_S
from duqsweep.control.dispatch.slurm import refusal
from duqsweep.control.dispatch.states import job_states
from duqsweep.errors import ConfigError
from duqsweep.files import EPISODES_JSONL, read_lines

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.parametrize("launcher", ["slurm"], indirect=True),
]

QOS = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
QOS += "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.fixture
def sbatch(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrapped:
    return wrapped("sbatch", tmp_path, monkeypatch)


@pytest.fixture
def squeue(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrapped:
    return wrapped("squeue", tmp_path, monkeypatch)


def wrapped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrapped:
    folder = tmp_path / f"bin {name}"
    folder.mkdir()
    return Wrapped(name, folder, monkeypatch)


def one_running(lab: Lab, **changes: object) -> Dispatcher:
    lab.trial(0, episode_s=0.1)
    dispatcher = lab.open(**changes)
    dispatcher.submit(Assignment(0, 2000))
    wait_until(lambda: lab.visits(0) == 1)
    return dispatcher


def slowest_poll(dispatcher: Dispatcher, seconds: float) -> tuple[float, list[Ended]]:
    """Seconds of the slowest of all polls, and what ended."""
    slowest, ended, deadline = 0.0, [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        start = time.monotonic()
        ended += dispatcher.poll()
        slowest = max(slowest, time.monotonic() - start)
        time.sleep(0.05)
    return slowest, ended


def finish(dispatcher: Dispatcher, lab: Lab) -> None:
    """The second trial is placed, and the first was never disturbed."""
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(1, 1), None)]
    dispatcher.stop(0, "asked to")
    assert wait_for_ends(dispatcher, 1)[0].failure is None
    assert (lab.visits(0), lab.visits(1)) == (1, 1)


@pytest.mark.fault("sbatch refuses: limits, busy, garbage, time-outs", "waited out, one warning")
@pytest.mark.parametrize(
    ("shell", "words", "seconds"),  # in which most are asked more than once
    [
        (f'echo "{QOS}" >&2; exit 1', "QOSMaxSubmitJobPerUserLimit", 3.0),
        ("exit 1", "exit code 1", 3.0),
        ("exit 0", "instead of a job's id", 4.0),
        ("head -c 300 /dev/urandom; exit 0", "instead of a job's id", 4.0),
        ("head -c 300 /dev/urandom >&2; exit 1", "sbatch refuses the job", 3.0),
        ("echo 'Zero Bytes were transmitted or received' >&2; exit 1", "Zero Bytes", 4.0),
        ("echo 'invalid partition specified: gone' >&2; exit 1", "invalid partition", 3.0),
        ("sleep 60", "gave no answer within 3 s", 6.0),
    ],
)
def test_whatever_sbatch_says_is_waited_out_while_own_jobs_run(
    lab: Lab,
    sbatch: Wrapped,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    shell: str,
    words: str,
    seconds: float,
) -> None:
    monkeypatch.setattr(pool, "BACK_OFF_S", 0.5)
    monkeypatch.setattr(pool, "UNCLEAR_S", 2.0)
    monkeypatch.setattr(jobstate, "ANSWER_S", 3.0)
    dispatcher = one_running(lab)
    lab.trial(1)
    with sbatch.doing(shell):
        dispatcher.submit(Assignment(1, 1))
        slowest, ended = slowest_poll(dispatcher, seconds)
    assert (slowest < 1.5, ended) == (True, [])
    assert sorted(one.trial for one in dispatcher.pending()) == [0, 1]
    (warning,) = [line for line in caplog.messages if "no job is taken now" in line]
    assert words in warning
    assert "asked for: sbatch --cpus-per-task=1 --mem=512M" in warning
    finish(dispatcher, lab)


@pytest.mark.fault("sbatch fails and took the job", "found by its name")
def test_a_job_that_was_taken_though_sbatch_failed_is_found_and_not_submitted_twice(
    lab: Lab, sbatch: Wrapped, monkeypatch: pytest.MonkeyPatch, slurm: SlurmLab
) -> None:
    monkeypatch.setattr(pool, "BACK_OFF_S", 0.5)
    dispatcher = one_running(lab)
    lab.trial(1, episode_s=0.5)
    before = sbatch.calls
    said = "Socket timed out on send/recv operation"
    with sbatch.doing(f'{sbatch.real} "$@" > /dev/null; echo "{said}" >&2; exit 1'):
        dispatcher.submit(Assignment(1, 1))
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(1, 1), None)]
    assert sbatch.calls == before + 1
    assert len(mailboxes(lab)) == 2


def test_an_impossible_first_job_is_refused_with_the_request(lab: Lab, sbatch: Wrapped) -> None:
    lab.trial(0)
    dispatcher = lab.open(partition="low")
    with (
        sbatch.doing("echo 'sbatch: error: You must name an account' >&2; exit 1"),
        pytest.raises(
            ConfigError, match=r"must name an account; asked for: sbatch --partition=low"
        ),
    ):
        dispatcher.submit(Assignment(0, 1))


def test_a_first_job_over_a_limit_waits(
    lab: Lab, sbatch: Wrapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BACK_OFF_S", 0.5)
    lab.trial(0)
    with sbatch.doing(f'echo "{QOS}" >&2; exit 1'):
        config = LauncherConfig(name="slurm", jobs=1, mem_gb=0.5)
        open_dispatcher(config, lab.folder)
        dispatcher = lab.open()
        dispatcher.submit(Assignment(0, 1))
        assert slowest_poll(dispatcher, 2.0)[1] == []
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 1), None)]


@pytest.mark.parametrize(
    ("said", "is_final"),
    [
        ("invalid partition specified: fast", True),
        ("Invalid qos specification", True),
        ("Invalid account or account/partition combination specified", True),
        ("Requested node configuration is not available", True),
        ("Memory specification can not be satisfied", True),
        ("You must name an account", True),
        (QOS, False),
        ("I/O error writing script/environment to file", False),
        ("Unable to contact slurm controller (connect failure)", False),
        ("slurm_load_partitions: Socket timed out on send/recv operation", False),
        ("Resource temporarily unavailable", False),
        ("Protocol authentication error", False),
        ("Required partition not available (inactive or drain)", False),
        ("Slurm backup controller in standby mode", False),
    ],
)
def test_refusals_that_pass_are_known(launcher: str, said: str, is_final: bool) -> None:
    assert refusal(said, "sbatch").is_final == is_final


@pytest.mark.fault("no permission to submit at a restart", "running jobs are taken up")
def test_reattaching_needs_no_permission_to_submit(lab: Lab, sbatch: Wrapped) -> None:
    one_running(lab)
    with sbatch.doing("echo 'Access/permission denied' >&2; exit 1"):
        config = LauncherConfig(name="slurm", jobs=2, mem_gb=0.5)
        dispatcher = open_dispatcher(config, lab.folder)
        assert dispatcher.reattach() == [Assignment(0, 2000)]
        dispatcher.stop(0, "asked to")
        assert wait_for_ends(dispatcher, 1)[0].failure is None
        with pytest.raises(ConfigError, match="permission denied"):
            open_dispatcher(config, lab.folder / "another")


@pytest.mark.fault("squeue lists nothing", "workers that beat are alive")
@pytest.mark.parametrize(
    "shell", ["exit 0", "exit 1", "head -c 4000 /dev/urandom; exit 0", "sleep 60"]
)
def test_a_squeue_that_lists_nothing_ends_nothing(
    lab: Lab, squeue: Wrapped, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setattr(jobstate, "ANSWER_S", 3.0)
    dispatcher = one_running(lab, jobs=2)
    folder = lab.folder / "trials" / "0000"
    with squeue.doing(shell):
        before = len(read_lines(folder / EPISODES_JSONL))
        slowest, ended = slowest_poll(dispatcher, QUIET_S + 3.0)
    assert (slowest < 1.0, ended) == (True, [])
    assert len(read_lines(folder / EPISODES_JSONL)) > before
    assert len(mailboxes(lab)) == 1
    lab.trial(1)
    dispatcher.submit(Assignment(1, 1))
    finish(dispatcher, lab)


@pytest.mark.fault("a job named in another encoding", "ignored")
def test_a_job_with_a_name_of_another_encoding_disturbs_nothing(lab: Lab, slurm: SlurmLab) -> None:
    name = b"--job-name=caf\xe9"
    command = [b"sbatch", name, b"--output=/dev/null", b"--wrap=sleep 60"]
    subprocess.run(command, env=slurm.environment(), check=True, stdout=subprocess.DEVNULL)
    dispatcher = one_running(lab)
    assert slowest_poll(dispatcher, 5.0)[1] == []
    lab.trial(1)
    dispatcher.submit(Assignment(1, 1))
    finish(dispatcher, lab)


@pytest.mark.fault("slurmd killed, its process lives", "the trial is finished by it")
def test_a_process_that_outlives_its_node_daemon_finishes_its_trial(
    lab: Lab, slurm: SlurmLab
) -> None:
    """SLURM says NODE_FAIL, but the worker continues and reports the outcome."""
    lab.trial(0, episode_s=20.0)
    dispatcher = lab.open()
    dispatcher.submit(Assignment(0, 2))
    wait_until(lambda: lab.visits(0) == 1)
    (box,) = mailboxes(lab)
    node = box.heartbeat().node
    slurm.end(f"slurmd-{node}", signal.SIGKILL)
    try:
        assert wait_for_ends(dispatcher, 1, 90.0) == [Ended(Assignment(0, 2), None)]
        assert "NODE_FAIL" in slurm.run("squeue", "-h", "-t", "all", "-o", "%T %j")
    finally:
        slurm.start_node(node)
    assert lab.visits(0) == 1
    assert len(mailboxes(lab)) == 1


@pytest.mark.fault("job held", "its trial goes to another worker")
def test_the_trial_of_a_held_job_goes_to_another_worker(
    lab: Lab, slurm: SlurmLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evidence, "HELD_S", 2.0)
    lab.trial(0)
    dispatcher = lab.open(additional_parameters={"begin": "now+1hour"})
    dispatcher.submit(Assignment(0, 1))
    job_id = mailboxes(lab)[0].job().job_id
    slurm.run("scontrol", "hold", job_id)
    state = job_states(dispatcher.config, lab.folder)[0]
    assert (state.state, state.reason[:7]) == ("held", "JobHeld")
    dispatcher.launcher.flags.pop("begin")  # the next job starts at once
    assert wait_for_ends(dispatcher, 1) == [Ended(Assignment(0, 1), None)]
    assert f"job {job_id} is held (JobHeld" in caplog.text
    assert len(mailboxes(lab)) == 2


@pytest.mark.fault("few jobs admitted", "they do all the work")
def test_few_admitted_jobs_do_the_work_of_those_that_wait(lab: Lab, slurm: SlurmLab) -> None:
    dispatcher = lab.open(jobs=6, cpus_per_task=8, idle_s=60.0)  # two nodes of eight CPUs
    for number in range(6):
        lab.trial(number, episode_s=0.3)
        dispatcher.submit(Assignment(number, 1))
    start = time.monotonic()
    states = {view.state for view in job_states(dispatcher.config, lab.folder).values()}
    assert "queued" in states
    ended = wait_for_ends(dispatcher, 6)
    assert sorted(end.assignment.trial for end in ended) == list(range(6))
    assert all(end.failure is None for end in ended)
    assert sum(box.heartbeat() is not None for box in mailboxes(lab)) <= 2
    assert time.monotonic() - start < 20.0


def test_jobs_end_when_a_sweep_without_a_controller_is_stopped(lab: Lab, slurm: SlurmLab) -> None:
    one_running(lab).close(end_jobs=False)
    (box,) = mailboxes(lab)
    dispatcher = lab.open()
    dispatcher.reattach()
    assert dispatcher.close(end_jobs=True) == 1
    wait_until(lambda: not Path(f"/proc/{box.heartbeat().pid}").exists())
    assert os.path.exists(box.folder / "stop")
