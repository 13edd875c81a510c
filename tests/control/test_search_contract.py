"""What the loop relies on in any search: shared tests, with the real loop and real trial files.

Three searches pass them: `FixedBudgetSearch` over the seed's plans, `KghvSearch` over a space, and
one that pauses every trial at half of the budget and resumes the better half of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from composed import composed_in
from synthetic_sweep import OBJECTIVES, make_episodes, make_trial, make_vitals

from duqsweep import files
from duqsweep.assignment import Assignment
from duqsweep.control.config.space import Space
from duqsweep.control.dispatch.inline import InlineDispatcher
from duqsweep.control.protocols import Search
from duqsweep.control.study.early_stopping import NoEarlyStopping
from duqsweep.control.study.identity import identity
from duqsweep.control.study.kghv_search import KghvSearch
from duqsweep.control.study.optuna_study import open_study
from duqsweep.control.study.search import FixedBudgetSearch
from duqsweep.control.sweep import Ending, Parts, Sweep
from duqsweep.control.sweep_files import FrontFiles, TrialFiles
from duqsweep.control.tracking.tracker import NullTracker
from duqsweep.control.trials.reader import TrialReader, TrialView, read_trials
from duqsweep.control.view.progress import NullProgress
from duqsweep.result import TrialResult
from duqsweep.spec import Trial
from duqsweep.worker.summary import SavedProgress, summarise

BUDGET = 8


class HalvingSearch:
    """Every trial gets half of the budget; then the better half of them gets the rest.

    It keeps nothing: what is left follows from the trials' files.
    """

    def __init__(self, folder: Path, trials: int) -> None:
        self._files = TrialFiles(folder, TrialReader(folder))
        self._folder, self._trials = folder, trials

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        views = {view.number: view for view in self._files.read()}
        free = set(range(self._trials)) - {assignment.trial for assignment in pending}
        for number in sorted(free):
            if number not in views or not self._is_at(views[number], BUDGET // 2):
                self._write_spec(number)
                return Assignment(number, BUDGET // 2)
        if any(not self._is_at(view, BUDGET // 2) for view in views.values()):
            return None
        better = sorted(views.values(), key=self._score)[: self._trials // 2]
        left = [view.number for view in better if not self._is_at(view, BUDGET)]
        number = next((number for number in left if number in free), None)
        return None if number is None else Assignment(number, BUDGET)

    is_busy = False

    def poll(self, wait_s: float = 0.0) -> bool:
        return False

    def observed(self, view: TrialView) -> None:
        pass

    def is_final(self, view: TrialView) -> bool:
        return view.result is not None and view.result.episodes >= BUDGET

    def ended(self, view: TrialView) -> None:
        pass

    def _is_at(self, view: TrialView, episodes: int) -> bool:
        result = view.result
        return result is not None and result.outcome == "complete" and result.episodes >= episodes

    def _score(self, view: TrialView) -> tuple[int, int]:
        return -sum(episode.success for episode in view.episodes[: BUDGET // 2]), view.number

    def _write_spec(self, number: int) -> None:
        path = files.trial_dir(self._folder, number) / files.SPEC_JSON
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, make_trial(number).to_json())


def opened(folder: Path, kind: type[FixedBudgetSearch] | type[KghvSearch], *words: str) -> Search:
    each = f"budget.episodes_per_trial={BUDGET}"
    config = composed_in(folder, *words, each)
    space = Space.from_config(config)
    study = open_study(config, space)
    if not (folder / files.IDENTITY_JSON).exists():
        files.write_json(folder / files.IDENTITY_JSON, identity(config, space))
    return kind(study, space, config, NoEarlyStopping(), TrialReader(folder))


def fixed_budget(folder: Path) -> Search:
    return opened(folder, FixedBudgetSearch, "+sweep=seed_plans")


def kghv(folder: Path) -> Search:
    """With start points and decisions for new and for known trials."""
    sampler = ("sampler=kghv", "sampler.batch=4", "sampler.startup_trials=2")
    sweep = ("+sweep=dit_speed", "enqueue=[reference,plan_a]", "budget.trials=5")
    return opened(folder, KghvSearch, *sweep, *sampler)


def halving(folder: Path) -> Search:
    return HalvingSearch(folder, 6)


# How to open each search, and the states that its trials have in the end.
SEARCHES: dict[str, tuple[Callable[[Path], Search], Counter[str]]] = {
    "fixed budget": (fixed_budget, Counter(complete=7)),
    "kghv": (kghv, Counter(paused=8)),
    "halving": (halving, Counter(complete=3, paused=3)),
}


class Killed(BaseException):
    """The controller is killed here."""


class Evaluator:
    """Plays recorded episodes in place of a policy; killed after so many files were written."""

    def __init__(self, kill_after: int | None = None) -> None:
        self.assignments: list[Assignment] = []
        self.played: list[tuple[int, int]] = []
        self._left = kill_after

    def __call__(self, folder: Path, until_episode: int) -> TrialResult:
        trial = Trial.from_json(files.read_json(folder / files.SPEC_JSON))
        self.assignments.append(Assignment(trial.number, until_episode))
        if not (folder / files.VITALS_JSON).exists():
            files.write_json(folder / files.VITALS_JSON, make_vitals(trial, 1.5).to_json())
            self._step()
        rate = 0.2 + 0.1 * trial.number
        for record in make_episodes(trial.number, until_episode, rate):
            if record.i not in SavedProgress.read(folder).finished:
                files.append_line(folder / files.EPISODES_JSONL, record.to_json())
                self.played.append((trial.number, record.i))
                self._step()
        result = summarise(SavedProgress.read(folder).episodes, "complete", "played")
        files.write_json(folder / files.RESULT_JSON, result.to_json())
        self._step()
        return result

    def _step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if not self._left:
                raise Killed


class CheckedSearch:
    """A search whose calls are checked against what the protocol promises."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self.ended_trials: list[int] = []

    def next(self, pending: Sequence[Assignment]) -> Assignment | None:
        assignment = self._search.next(pending)
        if assignment is not None:
            assert assignment.trial not in {other.trial for other in pending}
            assert assignment.until_episode > 0
        return assignment

    @property
    def is_busy(self) -> bool:
        return self._search.is_busy

    def poll(self, wait_s: float = 0.0) -> bool:
        return self._search.poll(wait_s)

    def observed(self, view: TrialView) -> None:
        self._search.observed(view)

    def is_final(self, view: TrialView) -> bool:
        return self._search.is_final(view)

    def ended(self, view: TrialView) -> None:
        assert view.result is not None
        assert view.status is not None
        assert view.status.state in ("complete", "pruned", "failed")
        self.ended_trials.append(view.number)
        self._search.ended(view)


@pytest.fixture(scope="module", params=list(SEARCHES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    run(kind, folder, Evaluator())
    return folder


def run(
    kind: str, folder: Path, evaluator: Evaluator, sleep: Callable[[float], None] = lambda s: None
) -> tuple[Ending, CheckedSearch]:
    folder.mkdir(exist_ok=True)
    search = CheckedSearch(SEARCHES[kind][0](folder))
    parts = Parts(
        search=search,
        stopping=NoEarlyStopping(),
        dispatcher=InlineDispatcher(folder, lambda: evaluator),
        trials=TrialFiles(folder, TrialReader(folder)),
        front=FrontFiles(folder, OBJECTIVES),
        progress=NullProgress(),
        tracker=NullTracker(),
    )
    return Sweep(folder, parts, sleep).run(), search


def states(folder: Path) -> dict[int, str]:
    return {view.number: view.status.state for view in read_trials(folder) if view.status}


def episodes(folder: Path) -> dict[int, list[int]]:
    return {view.number: [record.i for record in view.episodes] for view in read_trials(folder)}


def test_it_ends_and_every_trial_is_final_or_paused(kind, tmp_path):
    evaluator = Evaluator()
    ending, search = run(kind, tmp_path / "s", evaluator)
    found = states(tmp_path / "s")
    assert ending == "finished"
    assert Counter(found.values()) == SEARCHES[kind][1]
    assert sorted(search.ended_trials) == [n for n, state in found.items() if state == "complete"]
    assert len(set(evaluator.assignments)) == len(evaluator.assignments)
    assert len(set(evaluator.played)) == len(evaluator.played)
    assert all(
        numbers == list(range(len(numbers))) for numbers in episodes(tmp_path / "s").values()
    )


def test_a_finished_sweep_started_again_evaluates_nothing_and_changes_no_file(kind, whole):
    folder = whole
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = Evaluator()
    assert run(kind, folder, again)[0] == "finished"
    assert again.assignments == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kill_after", [1, 3, 9, 10, 11, 27])
def test_a_controller_that_is_killed_loses_and_repeats_nothing(kind, kill_after, whole, tmp_path):
    folder = tmp_path / "s"
    first, second = Evaluator(kill_after), Evaluator()
    with pytest.raises(Killed):
        run(kind, folder, first)
    assert run(kind, folder, second)[0] == "finished"
    assert states(folder) == states(whole)
    assert episodes(folder) == episodes(whole)
    assert len(set(first.played + second.played)) == len(first.played + second.played)
    written = json.loads((folder / files.FRONT_JSON).read_text())
    assert written["counts"] == json.loads((whole / files.FRONT_JSON).read_text())["counts"]


def test_a_sweep_that_is_stopped_and_started_again_ends_as_one_that_was_not(kind, whole, tmp_path):
    folder = tmp_path / "s"
    ending, _ = run(kind, folder, Evaluator(), lambda s: files.write_text(folder / files.STOP, ""))
    assert ending == "stopped"
    assert len(states(folder)) == 1
    (folder / files.STOP).unlink()
    assert run(kind, folder, Evaluator())[0] == "finished"
    assert states(folder) == states(whole)
    assert episodes(folder) == episodes(whole)


def test_the_halving_search_spends_less_than_the_whole_budget(tmp_path):
    run("halving", tmp_path / "s", Evaluator())
    lengths = {n: len(numbers) for n, numbers in episodes(tmp_path / "s").items()}
    assert Counter(lengths.values()) == {BUDGET // 2: 3, BUDGET: 3}
