"""MLflow mirrors a sweep's files completely and repeatably, and never stops the sweep."""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import sqlalchemy
from composed import composed_in
from synthetic_sweep import (
    OBJECTIVES,
    SUITE,
    make_episodes,
    make_result,
    make_trial,
    make_vitals,
    write_sweep,
    write_trial,
)

from duqsweep import files
from duqsweep.control.front.content import compute_front
from duqsweep.control.front.factors import TWINS_DIR
from duqsweep.control.front.records import Front, read_front
from duqsweep.control.report.report import write_report
from duqsweep.control.tracking import mlflow_client, register, shared_view
from duqsweep.control.tracking.copied_runs import KEY_TAG
from duqsweep.control.tracking.links import links
from duqsweep.control.tracking.mirror import NOTE_TAG, Mirror, mirror
from duqsweep.control.tracking.runids import known_runs, sweep_key
from duqsweep.control.tracking.runs import trial_record
from duqsweep.control.tracking.tracker import MlflowTracker, NullTracker, open_tracker
from duqsweep.control.trials.reader import read_trial, read_trials
from duqsweep.control.twins import read_timings, twin_trials, untimed
from duqsweep.errors import ConfigError, DuqsweepError
from duqsweep.fingerprint import digest
from duqsweep.verbs.screens import update_screens
from duqsweep.worker.ledger import make_ledger, write_ledger

# MLflow 3.17 uses what SQLAlchemy 2.1 calls outdated.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
TRIALS, EPISODES = 20, 6


def report(sweep_dir: Path) -> None:
    views = read_trials(sweep_dir)
    write_report(sweep_dir, compute_front(sweep_dir, OBJECTIVES, views), views)


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its mirror; creating the database takes seconds, so it is shared."""
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "dit_speed", TRIALS, EPISODES)
    write_ledger(folder / files.LEDGER_JSON, make_ledger(SUITE))
    log = files.trial_dir(folder, 3) / files.LOG_TXT
    log.write_text("load: 0.76 s from s3://me:secret@host/weights\n")
    (folder / files.VIDEOS_DIR).mkdir()
    for film in ("trial_0003_episode_0001.mp4", "trial_0003_beside_0000_episode_0002.mp4"):
        (folder / files.VIDEOS_DIR / film).write_bytes(b"a film")
    report(folder)
    assert mirror(folder) == TRIALS
    return folder


@pytest.fixture
def copy(sweep_dir: Path, tmp_path: Path) -> Path:
    """The sweep's files without a mirror."""
    return Path(shutil.copytree(sweep_dir, tmp_path / "dit_speed", ignore=_without_mirror))


def _without_mirror(_folder: str, names: list[str]) -> set[str]:
    return {files.MLFLOW_DB, files.MLFLOW_ARTIFACTS, files.TRACKING_JSON} & set(names)


def client(sweep_dir: Path) -> Any:
    return mlflow_client.import_client()(mlflow_client.default_uri(sweep_dir))


def everything(sweep_dir: Path) -> dict[str, Any]:
    """Everything that MLflow stores of the sweep, by key, without generated ids."""
    mlflow = client(sweep_dir)
    experiment = mlflow.get_experiment_by_name("duqsweep/dit_speed").experiment_id
    held, history = {}, histories(sweep_dir)
    for run in mlflow.search_runs([experiment], max_results=1000):
        parent = run.data.tags.pop("mlflow.parentRunId", None)
        assert run.data.metrics.keys() == history[run.info.run_id].keys()
        held[run.data.tags[KEY_TAG]] = {
            "name": run.info.run_name,
            "times": (run.info.start_time, run.info.end_time, run.info.status),
            "child": parent is not None,
            "params": run.data.params,
            "tags": run.data.tags,
            "metrics": history[run.info.run_id],
            "artifacts": sorted(path.name for path in artifacts_of(run).glob("*")),
        }
    return held


def histories(sweep_dir: Path) -> dict[str, dict[str, list[tuple[int, float, int]]]]:
    """Run → metric → its steps, values and times, from one look into MLflow's database.

    Its client takes two thousandths of a second for each metric of each run, which was half of
    these tests' time.
    """
    held: dict[str, dict[str, list[tuple[int, float, int]]]] = defaultdict(dict)
    with closing(sqlite3.connect(sweep_dir / files.MLFLOW_DB)) as database:
        query = "SELECT run_uuid, key, step, value, timestamp FROM metrics ORDER BY 3, 4, 5"
        for run, key, *point in database.execute(query):
            held[run].setdefault(key, []).append(tuple(point))
    return held


def artifacts_of(run: Any) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def test_a_sweep_is_a_parent_and_each_trial_its_child(sweep_dir: Path) -> None:
    held = everything(sweep_dir)
    key = sweep_key(sweep_dir)
    assert set(held) == {key, *(f"{key}/{number}" for number in range(TRIALS))}
    assert not held[key]["child"]
    assert all(held[f"{key}/{number}"]["child"] for number in range(TRIALS))
    assert held[key]["name"] == "dit_speed"
    assert held[f"{key}/2"]["name"] == "trial 2 plan_a"


def test_parent_has_the_fronts_growth_its_table_and_the_report(sweep_dir: Path) -> None:
    parent = everything(sweep_dir)[sweep_key(sweep_dir)]
    assert [step for step, _, _ in parent["metrics"]["hypervolume"]] == list(range(TRIALS - 1))
    assert set(parent["metrics"]) == {"hypervolume", "best_success_rate"}
    assert "| trial | success | 95 % | time |" in parent["tags"]["mlflow.note.content"]
    assert {"report.html", "front.png", "front.csv", "front.json"} <= set(parent["artifacts"])
    assert parent["times"][2] == "RUNNING"  # one trial of the sweep still runs


def test_child_has_numeric_params_objectives_vitals_and_episodes(sweep_dir: Path) -> None:
    point = json.loads((sweep_dir / files.FRONT_JSON).read_text())["points"][3]
    child = everything(sweep_dir)[f"{sweep_key(sweep_dir)}/3"]
    assert child["params"]["w_bits"] == "4"
    assert child["params"]["compile"] == "True"
    single = {key: values for key, values in child["metrics"].items() if len(values) == 1}
    for name in ("success_rate", "episode_time_s", "success_low", "speedup", "call_ms"):
        assert single[name][0][:2] == (0, pytest.approx(point[name]))
    steps = [step for step, _, _ in child["metrics"]["episode.success_so_far"]]
    assert steps == list(range(EPISODES))
    assert child["tags"]["duqsweep.front"] == str(point["on_front"]).lower()


def run_of(sweep_dir: Path, number: int) -> Any:
    known = known_runs(sweep_dir, None)
    assert known is not None
    return client(sweep_dir).get_run(known["trials"][str(number)])


def test_child_has_its_files_without_passwords_and_what_it_played(sweep_dir: Path) -> None:
    child = everything(sweep_dir)[f"{sweep_key(sweep_dir)}/3"]
    films = {"trial_0003_episode_0001.mp4", "trial_0003_beside_0000_episode_0002.mp4"}
    assert set(child["artifacts"]) == {
        "spec.json",
        "vitals.json",
        "result.json",
        "episodes.jsonl",
        "log.txt",
        *films,
    }
    run = run_of(sweep_dir, 3)
    folder = artifacts_of(run)
    assert (folder / "log.txt").read_text() == "load: 0.76 s from s3://me:***@host/weights\n"
    assert (folder / "spec.json").read_bytes() == (
        files.trial_dir(sweep_dir, 3) / files.SPEC_JSON
    ).read_bytes()
    known = known_runs(sweep_dir, None)
    assert known is not None
    (used,) = client(sweep_dir).get_run(known["parent"]).inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("dit_speed ledger", "evaluation")
    assert json.loads(used.dataset.profile) == {"episodes": 150}
    assert run.data.tags["duqsweep.ledger"] == used.dataset.digest
    running = everything(sweep_dir)[f"{sweep_key(sweep_dir)}/{TRIALS - 1}"]
    assert running["artifacts"] == [] or running["times"][2] != "RUNNING"


def test_runs_and_experiment_are_described(sweep_dir: Path) -> None:
    held, key = everything(sweep_dir), sweep_key(sweep_dir)
    assert "success" in held[f"{key}/3"]["tags"]["mlflow.note.content"]
    stopped = held[f"{key}/{TRIALS - 2}"]["tags"]["mlflow.note.content"]
    assert "Stopped: its time alone rules it out" in stopped
    assert held[f"{key}/{TRIALS - 3}"]["tags"]["mlflow.note.content"] == "```\nTraceback …\n```"
    experiment = client(sweep_dir).get_experiment_by_name("duqsweep/dit_speed")
    assert "**duqsweep, sweep dit_speed**: maximize success rate" in experiment.tags[NOTE_TAG]


def test_the_experiment_opens_on_the_front(sweep_dir: Path) -> None:
    known = known_runs(sweep_dir, None)
    assert known is not None
    experiment = client(sweep_dir).get_experiment(known["experiment"])
    view = json.loads(experiment.tags[f"{shared_view.TAG}{known['view']}"])
    packed = base64.b64decode(view["state"].removeprefix("deflate;"))
    state = json.loads(zlib.decompress(packed))
    assert known["parent"] in state["searchFilter"]
    scatter, parallel = state["compareRunCharts"]
    assert (scatter["xaxis"]["key"], scatter["yaxis"]["key"]) == ("episode_time_s", "success_rate")
    assert set(parallel["selectedParams"]) == {"w_bits", "num_steps", "compile", "block_size"}
    # What the view names is there.
    held = everything(sweep_dir)[f"{sweep_key(sweep_dir)}/3"]
    for column in state["selectedColumns"]:
        kind, _, name = column.partition(".")
        assert name.strip("`") in held[kind], column
    lines = dict(line.split(maxsplit=1) for line in links(sweep_dir))
    assert f"viewStateShareKey={known['view']}&compareRunsMode=CHART" in lines["front:"]


def test_the_chart_of_settings_has_those_that_trials_have_together(sweep_dir: Path) -> None:
    front = compute_front(sweep_dir, OBJECTIVES)
    points = [
        dataclasses.replace(
            point,
            params=point.params | ({"quant.kernel": f"k{point.trial}"} if point.name else {}),
        )
        for point in front.points
    ]
    with_plans = dataclasses.replace(front, points=tuple(points))
    view = json.loads(shared_view.view_tag(with_plans, "a" * 32, 0))
    packed = base64.b64decode(view["state"].removeprefix("deflate;"))
    state = json.loads(zlib.decompress(packed))
    assert "params.`kernel`" in state["selectedColumns"]
    chosen = state["compareRunCharts"][1]["selectedParams"]
    assert "kernel" not in chosen  # only plans have it
    assert {"w_bits", "num_steps"} <= set(chosen)


def test_a_view_of_many_settings_fits_into_a_tag(sweep_dir: Path) -> None:
    front = compute_front(sweep_dir, OBJECTIVES)
    params = {f"quant.weight_bits.layers.{n}": n for n in range(200)}
    points = [
        dataclasses.replace(
            point, params={key: value + point.trial for key, value in params.items()}
        )
        for point in front.points
    ]
    many = dataclasses.replace(front, points=tuple(points))
    assert len(shared_view.view_tag(many, "a" * 32, 0)) < 5000


def test_episodes_are_logged_in_ledger_order_up_to_the_first_gap(tmp_path: Path) -> None:
    trial, played = make_trial(0), make_episodes(0, 6, 0.5)
    trial_dir = files.trial_dir(tmp_path, 0)
    write_trial(tmp_path, trial, make_vitals(trial, 2.0), [], None)

    def steps_after(*ended: int) -> list[int]:
        lines = [json.dumps(played[i].to_json()) + "\n" for i in ended]
        (trial_dir / files.EPISODES_JSONL).write_text("".join(lines))
        record = trial_record(read_trial(trial_dir), None, None)
        return [step for key, _, _, step in record.metrics if key == "episode.success_so_far"]

    assert steps_after(0, 2, 1, 5) == [0, 1, 2]
    assert steps_after(3, 2, 1) == []
    assert steps_after(5, 4, 3, 2, 1, 0) == list(range(6))


def test_the_settling_success_rate_has_ten_points_per_tenfold_of_episodes(tmp_path: Path) -> None:
    trial, played = make_trial(0), make_episodes(0, 300, 0.5)
    write_trial(tmp_path, trial, make_vitals(trial, 2.0), played, None)
    record = trial_record(read_trial(files.trial_dir(tmp_path, 0)), None, None)
    series = {step + 1: value for key, value, _, step in record.metrics if key.startswith("epis")}
    assert list(series)[:9] == list(range(1, 10))
    assert list(series)[9:20] == [10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90]
    assert list(series)[20:] == [100, 150, 200, 250, 300]
    for count, rate in series.items():
        assert rate == sum(record.success for record in played[:count]) / count


def test_states_and_times_are_the_trials_own(sweep_dir: Path) -> None:
    held, key = everything(sweep_dir), sweep_key(sweep_dir)
    states = [held[f"{key}/{number}"]["times"][2] for number in range(TRIALS)]
    assert states == ["FINISHED"] * (TRIALS - 3) + ["FAILED", "KILLED", "RUNNING"]
    view = read_trials(sweep_dir)[4]
    assert held[f"{key}/4"]["times"][:2] == (view.started_ms, view.ended_ms)


def test_mirroring_again_changes_nothing(sweep_dir: Path) -> None:
    before = everything(sweep_dir)
    stamp = (sweep_dir / files.TRACKING_JSON).read_bytes()
    artifacts = {p: p.stat().st_mtime_ns for p in (sweep_dir / "mlartifacts").rglob("*.*")}
    mirror(sweep_dir)
    assert everything(sweep_dir) == before
    assert (sweep_dir / files.TRACKING_JSON).read_bytes() == stamp
    assert {p: p.stat().st_mtime_ns for p in (sweep_dir / "mlartifacts").rglob("*.*")} == artifacts


def test_without_its_database_a_sweep_is_mirrored_identically(sweep_dir: Path, copy: Path) -> None:
    # In a copy, because MLflow keeps a deleted database open for the rest of the process.
    shutil.copy2(sweep_dir / files.TRACKING_JSON, copy)
    mirror(copy)
    assert everything(copy) == everything(sweep_dir)


class KilledError(Exception):
    """Stands for the end of the controller."""


@pytest.mark.parametrize("at", ["_put", "set_terminated", "log_batch"])
def test_a_run_whose_maker_was_killed_is_completed(sweep_dir: Path, copy: Path, at: str) -> None:
    shutil.copy2(sweep_dir / files.TRACKING_JSON, copy)
    killed = Mirror(copy)
    killed._key = sweep_key(copy)
    killed._runs = killed._connect()
    of_trial = f"{killed._key}/3"
    owner = killed if at == "_put" else killed._client
    act = getattr(owner, at)

    def die(run: Any, *rest: Any, **named: Any) -> None:
        ids = killed._runs.ids() if killed._runs is not None else {}
        if of_trial in ids and ids[of_trial] in (run, getattr(run, "id", None)):
            raise KilledError
        act(run, *rest, **named)

    setattr(owner, at, die)
    with pytest.raises(KilledError):
        killed.update(final=True)
    run = everything(copy)[of_trial]
    assert "duqsweep.metrics" in run["tags"]  # a promise that nobody keeps
    assert run["metrics"] == {}
    mirror(copy)
    assert everything(copy) == everything(sweep_dir)


def test_a_run_created_twice_leaves_one(sweep_dir: Path) -> None:
    mlflow, key = client(sweep_dir), sweep_key(sweep_dir)
    experiment = mlflow.get_experiment_by_name("duqsweep/dit_speed").experiment_id
    mlflow.create_run(experiment, tags={KEY_TAG: f"{key}/5"})  # an answer that never arrived
    mirror(sweep_dir)
    runs = mlflow.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}/5'")
    assert [run.info.run_name for run in runs] == ["trial 5 plan_d"]


def test_a_trial_that_ends_later_is_brought_up_to_date(sweep_dir: Path) -> None:
    live = Mirror(sweep_dir)
    live.update()
    trial = make_trial(TRIALS - 1, 8, 5)
    vitals, episodes = make_vitals(trial, 1.5), make_episodes(TRIALS - 1, EPISODES, 0.95)
    write_trial(sweep_dir, trial, vitals, episodes, make_result(episodes))
    report(sweep_dir)
    live.update(final=True)
    held, key = everything(sweep_dir), sweep_key(sweep_dir)
    assert held[f"{key}/{TRIALS - 1}"]["times"][2] == "FINISHED"
    assert held[key]["times"][2] == "FINISHED"
    assert len(held[key]["metrics"]["hypervolume"]) == TRIALS


def test_links_open_the_sweep_its_trials_and_the_fronts_comparison(sweep_dir: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in links(sweep_dir))
    known = known_runs(sweep_dir, None)
    assert known is not None
    assert lines["MLflow:"].endswith(f"ui --backend-store-uri sqlite:///{sweep_dir}/mlflow.db")
    assert known["parent"] in lines["sweep:"]
    assert f"viewStateShareKey={known['view']}&compareRunsMode=CHART" in lines["front:"]
    assert f"viewStateShareKey={known['view']}&compareRunsMode=TABLE" in lines["trials:"]
    content = json.loads((sweep_dir / files.FRONT_JSON).read_text())
    front = [known["trials"][str(p["trial"])] for p in content["points"] if p["on_front"]]
    runs = unquote(lines["compare:"].split("runs=")[1].split("&")[0])
    assert sorted(json.loads(runs)) == sorted(front)
    assert all("workflowType=machine_learning" in url for url in list(lines.values())[1:])


def test_links_of_a_server_start_with_its_address_and_show_no_password(sweep_dir: Path) -> None:
    state = files.read_json(sweep_dir / files.TRACKING_JSON)
    known = next(iter(state["links"].values()))
    for uri in ("https://mlflow.example.org/", "postgresql://me:secret@db/mlflow"):
        state["links"][digest(uri)] = known
    files.write_json(sweep_dir / files.TRACKING_JSON, state)
    remote = links(sweep_dir, "https://mlflow.example.org/")
    assert remote[0].split()[1].startswith("https://mlflow.example.org/#/experiments/")
    assert "secret" not in "".join(links(sweep_dir, "postgresql://me:secret@db/mlflow"))


def test_there_are_no_links_before_the_first_update(tmp_path: Path) -> None:
    assert links(tmp_path) == []


def test_a_moved_folder_is_told_what_to_do(sweep_dir: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(sweep_dir, tmp_path / "dit_speed"))
    with pytest.raises(DuqsweepError, match=r"has moved: delete .*mlflow\.db and sync again"):
        mirror(moved)


def test_tracker_mirrors_in_the_background(sweep_dir: Path) -> None:
    tracker = MlflowTracker(sweep_dir)
    tracker.sweep_started()
    tracker.trial_changed(3)
    tracker.front_changed(compute_front(sweep_dir, OBJECTIVES))
    assert tracker.close(60) is None


def timed(act: Callable[[], Any]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def test_a_dead_server_costs_the_sweep_nothing_and_is_reported(copy: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        tracker = MlflowTracker(copy, f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert timed(tracker.sweep_started) < 0.2
        assert timed(lambda: [tracker.trial_changed(n) for n in range(100)]) < 0.2
        problem = tracker.close(30)
    assert problem is not None
    assert problem.startswith("MLflow lacks part of this sweep: ")
    assert problem.endswith(f"python -m duqsweep sync {copy}")


def test_a_server_that_never_answers_is_left_behind_in_time(copy: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        tracker = MlflowTracker(copy, f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracker.sweep_started()
        assert timed(lambda: tracker.close(1.0)) < 2.0
        assert "not done within 0 s" in (tracker.close(0.0) or "")
    tracker.close(60)  # its thread must not outlive the test


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers every request with 500 and counts them."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_error(500)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.fault(
    "MLflow's server down, silent or broken", "the sweep does not wait; `sync` catches up"
)
def test_a_broken_server_is_asked_ever_less_often(copy: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tracker = MlflowTracker(copy, f"http://127.0.0.1:{server.server_port}", first_pause_s=60)
    tracker.sweep_started()
    deadline = time.monotonic() + 60
    while tracker.failures == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    asked = Refusing.asked
    for number in range(50):
        tracker.trial_changed(number)
    time.sleep(2.5)  # longer than events are gathered
    assert tracker.failures == 1
    assert Refusing.asked == asked
    assert tracker.close(60) is not None  # one last try
    assert tracker.failures == 2
    server.shutdown()
    server.server_close()


def test_no_tracking_keeps_nothing(tmp_path: Path) -> None:
    tracker = open_tracker("none", tmp_path)
    assert isinstance(tracker, NullTracker)
    tracker.sweep_started()
    assert tracker.close(1) is None
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_made_later_follows(sweep_dir: Path) -> None:
    film = sweep_dir / files.VIDEOS_DIR / "trial_0002_episode_0000.mp4"
    film.write_bytes(b"a film")
    assert mirror(sweep_dir) == TRIALS
    assert film.name in everything(sweep_dir)[f"{sweep_key(sweep_dir)}/2"]["artifacts"]


CONTENT = {register.CARD: "---\nof: programs\n---\n\n# a card\n", register.PLAN: "plans: {}"}


def test_a_chosen_trial_is_a_version_of_a_model_once(sweep_dir: Path) -> None:
    given = (sweep_dir, None, 3, "mine", "abc")
    first = register.register(*given, CONTENT)
    again = register.register(*given, CONTENT)
    other = register.register(*given, {**CONTENT, register.CARD: "# another"})
    assert [(v.version, v.is_new) for v in (first, again, other)] == [
        ("1", True),
        ("1", False),
        ("2", True),
    ]
    version = client(sweep_dir).get_model_version("mine", "1")
    run = run_of(sweep_dir, 3)
    assert (version.run_id, version.description) == (run.info.run_id, "# a card")
    assert version.tags[register.FINGERPRINT_TAG] == "abc"
    listed = client(sweep_dir).list_artifacts(run.info.run_id, "model")
    assert {item.path for item in listed} == {"model/README.md", "model/plan.yaml"}


def test_what_mlflow_does_not_have_cannot_be_registered(sweep_dir: Path, copy: Path) -> None:
    for folder, number in ((sweep_dir, 99), (copy, 3)):
        with pytest.raises(ConfigError, match=f"no run of trial {number}: .* after `sync`"):
            register.register(folder, None, number, "mine", "abc", CONTENT)


def test_a_finished_run_is_not_ended_again_when_its_place_on_the_front_changes(copy: Path) -> None:
    kept = Mirror(copy)
    kept.update(final=True)
    front = read_front(copy)
    assert front is not None
    ended: list[str] = []
    end = kept._client.set_terminated
    kept._client.set_terminated = lambda run, *rest: ended.append(run) or end(run, *rest)
    points = tuple(dataclasses.replace(point, p_front=0.5) for point in front.points)
    kept.update(final=True, changed=(), front=dataclasses.replace(front, points=points))
    assert run_of(copy, 3).data.tags["duqsweep.p_front"] == "0.50"
    assert ended == []


class Written:
    """Notes what a mirror writes with `log_batch`."""

    def __init__(self, mirror: Mirror) -> None:
        self.batches: list[tuple[str, int, int, set[str]]] = []  # key, metrics, params, tags
        assert mirror._runs is not None
        keys = {run_id: key for key, run_id in mirror._runs.ids().items()}
        send = mirror._client.log_batch

        def log_batch(run: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
            names = {tag.key.removeprefix("duqsweep.") for tag in tags}
            number = keys[run].partition("/")[2]
            self.batches.append((number, len(metrics), len(params), names))
            send(run, metrics=metrics, params=params, tags=tags)

        mirror._client.log_batch = log_batch

    def of_trials(self) -> list[tuple[str, int, int, set[str]]]:
        """Of the trials since the last call."""
        batches, self.batches = [batch for batch in self.batches if batch[0]], []
        return batches


def with_p_front(front: Front, chances: dict[int, float]) -> Front:
    """A front with these trials' p(front)."""
    points = (
        dataclasses.replace(point, p_front=chances.get(point.trial, point.p_front))
        for point in front.points
    )
    return dataclasses.replace(front, points=tuple(points))


def test_after_a_restart_only_what_has_changed_much_is_written_until_the_end(copy: Path) -> None:
    found = read_front(copy)
    assert found is not None
    chances = {point.trial: 0.5 for point in found.points}
    Mirror(copy).update(final=True, front=with_p_front(found, chances))
    kept = Mirror(copy)
    kept._runs = kept._connect()  # a restarted controller, before its first look
    kept._key = sweep_key(copy)
    written = Written(kept)
    front = with_p_front(found, chances | {3: 0.55, 4: 0.7})
    kept.update(front=front)
    assert written.of_trials() == [("4", 0, 0, {"p_front"})]
    front = with_p_front(found, chances | {3: 0.58, 4: 0.7, 5: 0.2})
    kept._due_s = 0.0  # as if half a minute had passed
    kept.update(changed=(), front=front)
    assert written.of_trials() == [("5", 0, 0, {"p_front"})]
    kept.update(final=True, changed=(), front=front)
    assert written.of_trials() == [("3", 0, 0, {"p_front"})]
    assert run_of(copy, 3).data.tags["duqsweep.p_front"] == "0.58"


def test_only_the_database_of_the_sweeps_folder_does_not_wait_for_the_disk(
    sweep_dir: Path, tmp_path: Path
) -> None:
    Mirror(sweep_dir).update()
    uris = (mlflow_client.default_uri(sweep_dir), f"sqlite:///{tmp_path}/other.db")
    found = []
    for uri in uris:
        engine = sqlalchemy.create_engine(uri)
        with engine.connect() as connection:
            found.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
        engine.dispose()
    assert found == [0, 2]  # off, full


def test_of_a_trial_that_runs_only_new_numbers_are_written(copy: Path) -> None:
    number = TRIALS - 1
    trial = make_trial(number, 8, 5)
    vitals, episodes = make_vitals(trial, 1.5), make_episodes(number, 15, 0.95)
    kept = Mirror(copy)
    (files.trial_dir(copy, number) / files.RESULT_JSON).unlink(missing_ok=True)
    write_trial(copy, trial, vitals, episodes[:3], None)
    kept.update()
    written = Written(kept)
    write_trial(copy, trial, vitals, episodes[:12], None)
    kept._due_s = 0.0
    kept.update()
    assert written.of_trials() == [(str(number), 7, 0, {"metrics"})]  # episodes 4 to 10
    write_trial(copy, trial, vitals, episodes, make_result(episodes))
    front = compute_front(copy, OBJECTIVES)
    before = tuple(point for point in front.points if point.trial != number)
    kept.update(changed=(number,), front=dataclasses.replace(front, points=before))
    assert written.of_trials() == []  # its point of the front comes in a moment
    kept.update(changed=(), front=front)
    ((_, metrics, params, tags),) = written.of_trials()
    assert (params, tags >= {"metrics", "outcome", "reason", "artifacts", "ledger"}) == (0, True)
    held = everything(copy)[f"{sweep_key(copy)}/{number}"]["metrics"]
    ended = read_trial(files.trial_dir(copy, number)).ended_ms
    assert metrics == 1 + sum(at == ended for series in held.values() for _, _, at in series)
    assert [step for step, _, _ in held["episode.success_so_far"]] == [*range(10), 14]


def test_the_sweeps_own_run_is_written_twice_a_minute_at_most(copy: Path) -> None:
    front = compute_front(copy, OBJECTIVES)
    first = [point for point in front.points if point.trial < 4]
    kept = Mirror(copy)
    kept.update(front=dataclasses.replace(front, points=tuple(first)))
    written = Written(kept)
    kept.update(changed=(), front=front)
    assert [number for number, *_ in written.batches if not number] == []
    kept._due_s = 0.0  # as if half a minute had passed
    kept.update(changed=(), front=front)
    (metrics,) = [metrics for number, metrics, *_ in written.batches if not number and metrics]
    assert metrics == 2 * (len(front.points) - len(first))  # hypervolume and best success


IMPORTS = """
import sys
from duqsweep.control.tracking import mlflow_client

assert "pandas" not in sys.modules
mlflow_client.import_client()
assert "mlflow" in sys.modules and "pandas" not in sys.modules
import pandas  # for whoever asks for it

taken = sys.modules["mlflow"]
really, asked = mlflow_client._import, []

def needs_pandas():
    asked.append(1)
    if len(asked) == 1:
        raise ModuleNotFoundError("pandas is left out")
    assert "mlflow" not in sys.modules
    return really()

mlflow_client._import = needs_pandas
assert mlflow_client.import_client().__name__ == "MlflowClient"
assert sys.modules["mlflow"] is not taken
"""


def test_mlflow_is_imported_without_pandas_where_it_can_be() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, timeout=300)


def test_timed_twins_reach_the_report_and_the_copy(copy: Path) -> None:
    config = composed_in(copy, "+sweep=dit_speed")
    views = read_trials(copy)
    update_screens(config, compute_front(copy, OBJECTIVES, views), views)
    assert not (copy / files.MLFLOW_DB).exists()  # no copy was there to be brought up to date
    mirror(copy)
    forms = untimed(compute_front(copy, OBJECTIVES, views), views, read_timings(copy, views))
    for twin in twin_trials(copy, forms, SUITE):
        steps = 10 / twin.spec.policy.num_steps
        vitals = make_vitals(twin, 2 * steps if twin.spec.runtime.compile else steps)
        write_trial(copy / TWINS_DIR, twin, vitals)
    front = compute_front(copy, OBJECTIVES, views)
    update_screens(config, front, views)
    assert "What made them fast" in (copy / files.REPORT_HTML).read_text()
    point = next(p for p in front.members if p.factors is not None and p.layers_quantized)
    held = everything(copy)[f"{sweep_key(copy)}/{point.trial}"]
    assert point.factors is not None
    found = {key: values[0][1] for key, values in held["metrics"].items() if "speedup." in key}
    assert found == {
        "speedup.steps": pytest.approx(point.factors.steps),
        "speedup.compile": pytest.approx(point.factors.compile),
        "speedup.quantization": pytest.approx(point.factors.quantization),
        "speedup.replan": pytest.approx(point.factors.replan),
        "speedup.episode": pytest.approx(point.factors.episode),
    }
    assert held["tags"]["duqsweep.twin"] == point.factors.twin
