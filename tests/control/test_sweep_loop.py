"""The loop under orders of events that cannot be forced with real parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from synthetic_sweep import (
    OBJECTIVES,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_trial,
)

from duqsweep import files
from duqsweep.assignment import Assignment, Ended, FailureKind, failure
from duqsweep.control.deaths import RETRIES, reopen
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.records import Front
from duqsweep.control.protocols import Prune
from duqsweep.control.sweep import Ending, Parts, Sweep
from duqsweep.control.sweep_files import FrontFiles, TrialFiles
from duqsweep.control.trial_status import TrialStatus, read_status, write_status
from duqsweep.control.trials.reader import TrialReader, TrialView, deaths_of
from duqsweep.control.view.progress import NullProgress
from duqsweep.result import TrialResult
from duqsweep.spec import Trial

EPISODES = 12


class Messages(NullProgress):
    """Collects the messages to the user."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)

    def died(self, number: int, text: str) -> None:
        self.texts.append(text)


class Mirror:
    """A tracker that remembers its calls."""

    def __init__(self) -> None:
        self.trials: list[int] = []
        self.fronts = 0

    def trial_changed(self, number: int) -> None:
        self.trials.append(number)

    def front_changed(self, front: Front) -> None:
        self.fronts += 1


@dataclass
class Listed:
    """A search that hands out trials by number."""

    sweep_dir: Path
    trials: int
    final_at: int = EPISODES
    told: list[TrialView] = field(default_factory=list)
    seen: list[TrialView] = field(default_factory=list)
    asked: int = 0

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        if self.asked == self.trials:
            return None
        number, self.asked = self.asked, self.asked + 1
        assert number not in {assignment.trial for assignment in pending}
        write_trial(self.sweep_dir, make_trial(number))
        return Assignment(number, EPISODES)

    is_busy: bool = False

    def poll(self, wait_s: float = 0.0) -> bool:
        return False

    def observed(self, view: TrialView) -> None:
        self.seen.append(view)

    def is_final(self, view: TrialView) -> bool:
        assert view.result is not None
        return view.result.episodes >= self.final_at

    def ended(self, view: TrialView) -> None:
        self.told.append(view)


@dataclass
class Rule:
    """An early-stopping strategy that prunes for the reason that `worthless` gives."""

    worthless: Callable[[TrialView], str | None] = lambda view: None

    def decide(self, view: TrialView) -> Prune | None:
        cause = self.worthless(view) if view.vitals else None
        return None if cause is None else Prune(cause)

    def min_speedup(self, trial: Trial) -> float:
        return 0.0


Event = Callable[["Scripted", Assignment], Ended | None]


@dataclass
class Scripted:
    """A dispatcher whose jobs follow the script of their trial, one entry per poll."""

    sweep_dir: Path
    script: dict[int, list[Event]]
    capacity: int = 1
    running: list[Assignment] = field(default_factory=list)
    submitted: list[int] = field(default_factory=list)
    stopped: dict[int, str] = field(default_factory=dict)
    most_at_once: int = 0

    def submit(self, assignment: Assignment) -> None:
        (files.trial_dir(self.sweep_dir, assignment.trial) / files.STOP).unlink(missing_ok=True)
        self.submitted.append(assignment.trial)
        self.running.append(assignment)
        self.most_at_once = max(self.most_at_once, len(self.running))

    def pending(self) -> list[Assignment]:
        return list(self.running)

    def reattach(self) -> list[Assignment]:
        return list(self.running)

    def poll(self) -> list[Ended]:
        told = [self.script[one.trial].pop(0)(self, one) for one in list(self.running)]
        ended = [end for end in told if end is not None]
        for end in ended:
            self.running.remove(end.assignment)
        return ended

    def stop(self, trial: int, reason: str) -> None:
        self.stopped[trial] = reason
        files.write_text(files.trial_dir(self.sweep_dir, trial) / files.STOP, reason)

    def close(self, end_jobs: bool) -> None:
        raise AssertionError("whoever made the dispatcher closes it")


def dies(kind: FailureKind) -> Event:
    return lambda jobs, assignment: Ended(assignment, failure(kind, f"{kind} it was"))


def completes(jobs: Scripted, assignment: Assignment) -> Ended:
    return finish(jobs, assignment, EPISODES)


def vanishes(jobs: Scripted, assignment: Assignment) -> Ended:
    """The job reports a result that does not exist."""
    return Ended(assignment, None)


def measures(jobs: Scripted, assignment: Assignment) -> None:
    trial = make_trial(assignment.trial)
    path = files.trial_dir(jobs.sweep_dir, assignment.trial) / files.VITALS_JSON
    files.write_json(path, make_vitals(trial, 1.5).to_json())


def stops_when_told(jobs: Scripted, assignment: Assignment) -> Ended | None:
    if assignment.trial not in jobs.stopped:
        return None
    return finish(jobs, assignment, 3, "stopped")


def brings_a_result_of(other: int) -> Event:
    """The job works on; a job that was given up writes the result of trial `other`."""

    def bring(jobs: Scripted, assignment: Assignment) -> None:
        finish(jobs, Assignment(other, EPISODES), EPISODES)

    return bring


def asks_the_sweep_to_stop(jobs: Scripted, assignment: Assignment) -> None:
    files.write_text(jobs.sweep_dir / files.STOP, "")


def finish(
    jobs: Scripted, assignment: Assignment, episodes: int, outcome: str = "complete"
) -> Ended:
    trial = make_trial(assignment.trial)
    vitals, records = make_vitals(trial, 1.5), make_episodes(trial.number, episodes, 0.9)
    content = {**make_result(records).to_json(), "outcome": outcome}
    write_trial(jobs.sweep_dir, trial, vitals, records, TrialResult.from_json(content))
    return Ended(assignment, None)


@dataclass
class Ran:
    ending: Ending
    search: Listed
    jobs: Scripted
    messages: list[str]
    mirror: Mirror
    loop: Sweep

    @property
    def outcomes(self) -> dict[int, str]:
        return {view.number: view.outcome for view in self.search.told}


def loop_over(
    search: Listed, jobs: Scripted, watcher: NullProgress, rule: Rule, mirror: Mirror
) -> Sweep:
    folder = jobs.sweep_dir
    turns = itertools.count()

    def sleep(seconds: float) -> None:
        assert next(turns) < 100, "the loop does not end"

    front = FrontFiles(folder, OBJECTIVES, clock=lambda: 0.0)
    return Sweep(
        folder,
        Parts(search, rule, jobs, TrialFiles(folder, TrialReader(folder)), front, watcher, mirror),
        sleep,
    )


def run(
    folder: Path,
    script: dict[int, list[Event]],
    capacity: int = 1,
    worthless: Callable[[TrialView], str | None] = lambda view: None,
    **search: Any,
) -> Ran:
    jobs = Scripted(folder, script, capacity)
    listed, messages, mirror = Listed(folder, len(script), **search), Messages(), Mirror()
    loop = loop_over(listed, jobs, messages, Rule(worthless), mirror)
    return Ran(loop.run(), listed, jobs, messages.texts, mirror, loop)


def status(folder: Path, number: int) -> TrialStatus:
    found = read_status(files.trial_dir(folder, number))
    assert found is not None
    return found


def test_as_many_trials_run_at_once_as_may_and_each_is_told_once(tmp_path):
    slow: list[Event] = [measures, measures, completes]
    ran = run(tmp_path, {0: list(slow), 1: [completes], 2: [completes], 3: list(slow)}, capacity=2)
    assert ran.ending == "finished"
    assert ran.jobs.submitted == [0, 1, 2, 3]
    assert ran.jobs.most_at_once == 2
    # 1 and 2 were told while 0 still ran: no trial waits for another one's end.
    assert [view.number for view in ran.search.told] == [1, 2, 0, 3]
    assert ran.mirror.fronts == 2  # after the first trial, and at the end: the clock stands
    assert {p["trial"] for p in files.read_json(tmp_path / files.FRONT_JSON)["points"]} == {
        0,
        1,
        2,
        3,
    }


@pytest.mark.parametrize("kind", ["node", "setup", "lost", "preempted", "timeout", "crash"])
def test_a_job_that_died_is_replaced(tmp_path, kind):
    ran = run(tmp_path, {0: [dies(kind), completes], 1: [completes]})
    assert ran.outcomes == {0: "complete", 1: "complete"}
    assert ran.jobs.submitted == [0, 0, 1]
    assert any(f"({kind})" in text and "another job resumes it" in text for text in ran.messages)


@pytest.mark.parametrize("kind", ["node", "setup", "lost", "timeout"])
def test_a_fault_of_the_machine_leaves_the_trial_open_and_the_next_start_tries_it_again(
    tmp_path, kind
):
    deaths: list[Event] = [measures, *[dies(kind)] * (RETRIES + 1)]
    ran = run(tmp_path, {0: deaths, 1: [completes]})
    assert ran.outcomes == {1: "complete"}  # nothing is told of the other
    assert ran.jobs.submitted == [0] * (RETRIES + 1) + [1]
    assert not (files.trial_dir(tmp_path, 0) / files.RESULT_JSON).exists()
    noted = deaths_of(files.trial_dir(tmp_path, 0))
    assert [(line["kind"], line["fault"]) for line in noted] == [(kind, "machine")] * (RETRIES + 1)
    assert ran.loop.deaths.open[0].message == f"{kind} it was"
    assert status(tmp_path, 0).state == "queued"
    assert f"({kind})" in status(tmp_path, 0).cause
    # Deaths under an earlier controller do not count.
    again = run(tmp_path, {0: [*[dies(kind)] * RETRIES, completes]})
    assert again.outcomes == {0: "complete"}


@pytest.mark.fault("result appears after its job was given up", "taken in while the sweep runs")
def test_a_result_that_appears_late_is_taken_in_by_the_running_controller(tmp_path):
    ran = run(tmp_path, {0: [dies("cancelled")], 1: [brings_a_result_of(0), measures, completes]})
    assert [view.number for view in ran.search.told] == [0, 1]  # while 1 still ran
    assert ran.outcomes == {0: "complete", 1: "complete"}
    assert ran.jobs.submitted == [0, 1]
    assert status(tmp_path, 0).state == "complete"
    assert list(ran.loop.deaths.open) == []
    assert "trial 0: its result has appeared after all" in ran.messages


def test_a_cancelled_job_is_not_submitted_again_and_its_trial_stays_open(tmp_path):
    ran = run(tmp_path, {0: [dies("cancelled")], 1: [completes]})
    assert ran.jobs.submitted == [0, 1]
    assert ran.outcomes == {1: "complete"}
    assert list(ran.loop.deaths.open) == [0]


@pytest.mark.fault(
    "controller dead, its jobs cancelled meanwhile", "another job resumes each trial"
)
def test_a_job_that_was_cancelled_while_no_controller_ran_is_replaced(tmp_path):
    write_trial(tmp_path, make_trial(0))
    jobs = Scripted(
        tmp_path, {0: [dies("cancelled"), completes]}, running=[Assignment(0, EPISODES)]
    )
    listed = Listed(tmp_path, 0)
    loop = loop_over(listed, jobs, NullProgress(), Rule(), Mirror())
    assert loop.run() == "finished"
    assert [view.outcome for view in listed.told] == ["complete"]


@pytest.mark.fault("preempted again and again", "resumed each time")
def test_preemption_is_retried_without_a_limit(tmp_path):
    ran = run(tmp_path, {0: [*[dies("preempted")] * (3 * RETRIES), completes]})
    assert ran.outcomes == {0: "complete"}


@pytest.mark.fault("every job dies before its first word", "the sweep ends, its trials stay open")
def test_a_sweep_ends_early_when_every_job_dies_before_its_first_word(tmp_path):
    ran = run(tmp_path, {number: [dies("setup")] * 9 for number in range(4)})
    assert ran.ending == "broken"
    assert ran.jobs.submitted == [0, 0, 0]
    assert ran.loop.deaths.common is not None
    assert ran.loop.deaths.common.message == "setup it was"
    assert ran.outcomes == {}


def test_one_trial_that_cannot_run_does_not_end_the_sweep_but_a_second_one_does(tmp_path):
    ran = run(tmp_path / "one", {0: [dies("timeout")] * 3, 1: [completes]})
    assert (ran.ending, ran.outcomes) == ("finished", {1: "complete"})
    ran = run(tmp_path / "all", {number: [dies("timeout")] * 3 for number in range(4)})
    assert (ran.ending, ran.jobs.submitted) == ("broken", [0, 0, 0, 1])


def test_a_sweep_that_gets_somewhere_goes_on_among_deaths(tmp_path):
    script: dict[int, list[Event]] = {0: [dies("node")] * 3, 1: [completes], 2: [dies("node")] * 3}
    ran = run(tmp_path, {**script, 3: [completes]})
    assert (ran.ending, ran.outcomes) == ("finished", {1: "complete", 3: "complete"})


@pytest.mark.fault(
    "policy crashes at the same episode", "failed after three crashes, with its episodes"
)
def test_a_policy_that_keeps_crashing_fails_for_good_and_what_is_known_is_kept(tmp_path):
    deaths: list[Event] = [measures, *[dies("crash")] * (RETRIES + 1)]
    ran = run(tmp_path, {0: deaths, 1: [completes]})
    assert ran.outcomes == {0: "failed", 1: "complete"}
    failed = ran.search.told[0].result
    assert failed is not None
    assert (failed.error_type, failed.reason) == ("crash", "crash it was")
    assert "not retried" in ran.messages[-1]


def test_crashes_under_earlier_controllers_count_until_a_person_retries(tmp_path):
    folder = files.trial_dir(tmp_path, 0)
    folder.mkdir(parents=True)
    for _ in range(RETRIES):
        line = {"kind": "crash", "message": "", "episodes": 0, "at_s": 0.0}
        files.append_line(folder / files.FAILURES_JSONL, line)
    assert run(tmp_path, {0: [dies("crash")]}).outcomes == {0: "failed"}
    reopen(folder)
    assert not (folder / files.RESULT_JSON).exists()
    assert run(tmp_path, {0: [dies("crash"), completes]}).outcomes == {0: "complete"}


@pytest.mark.fault("policy runs out of memory twice", "failed")
def test_running_out_of_memory_twice_at_one_episode_is_the_trials_own_fault(tmp_path):
    ran = run(tmp_path, {0: [dies("oom")] * 2, 1: [dies("oom"), completes]})
    assert ran.outcomes == {0: "failed", 1: "complete"}
    assert sorted(ran.jobs.submitted) == [0, 0, 1, 1]
    (final,) = [text for text in ran.messages if "not retried" in text]
    assert final.startswith("trial 0")


@pytest.mark.fault("job ends without a result", "the trial is retried")
def test_a_job_that_ends_without_a_result_counts_as_lost(tmp_path):
    ran = run(tmp_path, {0: [vanishes, completes]})
    assert ran.outcomes == {0: "complete"}
    assert [line["kind"] for line in deaths_of(files.trial_dir(tmp_path, 0))] == ["lost"]
    never = run(tmp_path / "never", {0: [vanishes] * (RETRIES + 1)})
    assert never.outcomes == {}


@pytest.mark.fault("job dies after it wrote its result", "the result counts")
def test_a_job_that_dies_after_its_result_was_written_has_not_failed(tmp_path):
    def completes_and_dies(jobs: Scripted, assignment: Assignment) -> Ended:
        completes(jobs, assignment)
        return Ended(assignment, failure("oom", "while it left"))

    assert run(tmp_path, {0: [completes_and_dies]}).outcomes == {0: "complete"}


def test_a_trial_that_is_pruned_is_stopped_once_and_told(tmp_path):
    ran = run(
        tmp_path,
        {0: [measures, measures, stops_when_told], 1: [completes]},
        worthless=lambda view: "too slow" if view.number == 0 else None,
    )
    assert ran.jobs.stopped == {0: "too slow"}
    assert ran.outcomes == {0: "stopped", 1: "complete"}
    assert ran.jobs.submitted == [0, 1]
    assert status(tmp_path, 0) == TrialStatus("pruned", "too slow", EPISODES)
    assert status(tmp_path, 1).state == "complete"


def test_a_pruned_trial_whose_job_dies_is_not_submitted_again(tmp_path):
    ran = run(
        tmp_path,
        {0: [measures, measures, dies("node")], 1: [completes]},
        worthless=lambda view: "too slow" if view.number == 0 else None,
    )
    assert ran.jobs.submitted == [0, 1]
    assert ran.outcomes == {0: "stopped", 1: "complete"}
    assert status(tmp_path, 0).state == "pruned"
    assert ran.search.told[0].result.reason == "too slow"


def test_a_trial_that_was_finished_before_it_could_be_pruned_is_complete(tmp_path):
    ran = run(tmp_path, {0: [measures, measures, completes]}, worthless=lambda view: "too slow")
    assert ran.jobs.stopped == {0: "too slow"}
    assert ran.outcomes == {0: "complete"}
    assert status(tmp_path, 0).state == "complete"


def test_the_decision_to_prune_outlives_the_controller(tmp_path):
    """It was written, and the controller was killed before the job was asked to stop."""
    trial = make_trial(0)
    write_trial(tmp_path, trial, make_vitals(trial, 1.5))
    folder = files.trial_dir(tmp_path, 0)
    write_status(folder, TrialStatus("pruned", "too slow", EPISODES))
    jobs = Scripted(tmp_path, {0: [stops_when_told]}, running=[Assignment(0, EPISODES)])
    listed = Listed(tmp_path, 0)
    assert loop_over(listed, jobs, NullProgress(), Rule(), Mirror()).run() == "finished"
    assert jobs.stopped == {0: "too slow"}
    assert [view.number for view in listed.told] == [0]
    assert status(tmp_path, 0).state == "pruned"


def test_a_pruned_trial_without_a_job_ends_at_the_next_start(tmp_path):
    trial = make_trial(0)
    write_trial(tmp_path, trial, make_vitals(trial, 1.5), make_episodes(0, 4, 0.5))
    write_status(files.trial_dir(tmp_path, 0), TrialStatus("pruned", "too slow", EPISODES))
    ran = run(tmp_path, {})
    assert [(v.outcome, v.result.episodes) for v in ran.search.told] == [("stopped", 4)]
    assert run(tmp_path, {}).search.told == []


def test_an_assignment_that_is_reached_pauses_the_trial_unless_the_search_says_it_is_final(
    tmp_path,
):
    ran = run(tmp_path, {0: [measures, completes]}, final_at=EPISODES + 1)
    assert ran.outcomes == {}
    assert status(tmp_path, 0).state == "paused"
    assert [view.status.state for view in ran.search.seen][-1] == "paused"
    assert ran.mirror.fronts == 1


@pytest.mark.fault("result written while no controller ran", "processed by the next start")
def test_a_result_that_no_dispatcher_reports_is_processed_at_the_next_start(tmp_path):
    jobs = Scripted(tmp_path, {})
    for number, outcome in enumerate(["complete", "stopped"]):
        finish(jobs, Assignment(number, EPISODES), EPISODES, outcome)
        folder = files.trial_dir(tmp_path, number)
        write_status(folder, TrialStatus("running", "a job has it", EPISODES))
    listed = Listed(tmp_path, 0)
    loop_over(listed, jobs, NullProgress(), Rule(), Mirror()).run()
    assert [view.number for view in listed.told] == [0]  # the other one is to be resumed
    assert [status(tmp_path, number).state for number in (0, 1)] == ["complete", "queued"]


def test_the_result_of_a_shorter_assignment_does_not_end_a_longer_one(tmp_path):
    """A resumed trial has a result already; its job vanishes without another one."""
    finish(Scripted(tmp_path, {}), Assignment(0, 4), 4)
    write_status(files.trial_dir(tmp_path, 0), TrialStatus("paused", "", 4))
    ran = run(tmp_path, {0: [vanishes, completes]})
    assert ran.jobs.submitted == [0, 0]
    assert [view.result.episodes for view in ran.search.told] == [EPISODES]


@pytest.mark.parametrize("is_submitted", [True, False])
def test_an_end_that_is_reported_twice_does_not_end_the_next_assignment(tmp_path, is_submitted):
    finish(Scripted(tmp_path, {}), Assignment(0, 4), 4)
    write_status(files.trial_dir(tmp_path, 0), TrialStatus("running", "", EPISODES))
    old, new = Assignment(0, 4), Assignment(0, EPISODES)

    def again(jobs: Scripted, one: Assignment) -> Ended | None:
        return Ended(one, None) if one == old else None

    script: dict[int, list[Event]] = {0: [again, measures, completes]}
    # The later assignment was submitted, or the controller was killed just before that.
    jobs = Scripted(tmp_path, script, running=[old, new] if is_submitted else [old])
    listed = Listed(tmp_path, 0)
    loop_over(listed, jobs, NullProgress(), Rule(), Mirror()).run()
    assert [view.result.episodes for view in listed.told] == [EPISODES]


def test_a_sweep_that_is_asked_to_stop_winds_down_and_tells_nothing_of_what_goes_on_later(tmp_path):
    asks: list[Event] = [measures, asks_the_sweep_to_stop, stops_when_told]
    ran = run(tmp_path, {0: asks, 1: [measures, measures, completes], 2: []}, capacity=2)
    assert ran.ending == "stopped"
    assert ran.jobs.submitted == [0, 1]
    assert set(ran.jobs.stopped) == {0, 1}
    assert ran.outcomes == {1: "complete"}
    assert "trial 0 stopped after 3 episodes" in ran.messages[-1]
    assert status(tmp_path, 0).state == "stopped"


def test_a_stop_is_obeyed_before_anything_is_begun(tmp_path):
    files.write_text(tmp_path / files.STOP, "")
    ran = run(tmp_path, {0: [completes]})
    assert (ran.ending, ran.jobs.submitted) == ("stopped", [])


def test_a_job_that_dies_while_the_sweep_winds_down_waits_for_the_next_life(tmp_path):
    ran = run(tmp_path, {0: [asks_the_sweep_to_stop, dies("node")]})
    assert ran.ending == "stopped"
    assert ran.jobs.submitted == [0]
    assert ran.outcomes == {}
    assert not (files.trial_dir(tmp_path, 0) / files.RESULT_JSON).exists()


def test_what_still_runs_from_an_earlier_life_is_awaited_and_said(tmp_path):
    write_trial(tmp_path, make_trial(7))
    jobs = Scripted(tmp_path, {7: [completes]}, running=[Assignment(7, EPISODES)])
    listed, messages = Listed(tmp_path, 0), Messages()
    ending = loop_over(listed, jobs, messages, Rule(), Mirror()).run()
    assert ending == "finished"
    assert [view.number for view in listed.told] == [7]
    assert jobs.submitted == []
    assert messages.texts == ["trial 7 still runs: re-attached"]


def shown(folder: Path) -> dict[str, Any]:
    return dict(files.read_json(folder / files.FRONT_JSON))


@pytest.mark.parametrize("ending", ["finished", "stopped", "broken"])
def test_the_front_is_up_to_date_however_the_loop_ends(tmp_path, ending):
    last: dict[str, list[Event]] = {
        "finished": [completes],
        "stopped": [asks_the_sweep_to_stop, completes],
        "broken": [dies("setup")] * 9,
    }
    script: dict[int, list[Event]] = {0: [completes], 1: [completes], 2: list(last[ending])}
    ran = run(tmp_path, {**script, 3: list(last[ending])})
    assert ran.ending == ending
    assert shown(tmp_path) == compute_front(tmp_path, OBJECTIVES).to_json()


def test_the_front_is_up_to_date_after_an_interrupt(tmp_path):
    def interrupts(jobs: Scripted, assignment: Assignment) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, {0: [completes], 1: [completes], 2: [interrupts]})
    assert [point["trial"] for point in shown(tmp_path)["points"]] == [0, 1]


@pytest.mark.fault(
    "controller killed between a result and the front", "the next start writes front.json"
)
def test_a_start_with_nothing_to_do_writes_the_front_that_a_killed_controller_did_not(tmp_path):
    run(tmp_path, {0: [completes], 1: [completes]})
    written = shown(tmp_path)
    for old in ("", "{", '{"sweep": "s"}'):
        files.write_text(tmp_path / files.FRONT_JSON, old)
        run(tmp_path, {})
        assert shown(tmp_path) == written
    (tmp_path / files.FRONT_JSON).unlink()
    run(tmp_path, {})
    assert shown(tmp_path) == written


def test_the_front_is_computed_again_after_a_second_and_ten_times_the_last_computation(tmp_path):
    finish(Scripted(tmp_path, {}), Assignment(0, EPISODES), EPISODES)
    views = TrialFiles(tmp_path, TrialReader(tmp_path)).read()
    times_s = [0.0, 0.01, 1.0, 1.02, 1.52, 6.5, 6.51, 6.53, 6.6, 6.7]
    front = FrontFiles(tmp_path, OBJECTIVES, clock=iter(times_s).__next__)
    assert front.update(views) is not None  # from 0 to 0.01 s: due at 1.01 s
    assert front.update(views) is None  # at 1 s
    assert front.update(views) is not None  # from 1.02 to 1.52 s: due at 6.52 s
    assert front.update(views) is None  # at 6.5 s
    assert front.update(views, final=True) is not None  # from 6.51 to 6.53 s
    assert front.update(views, final=True) is not None
