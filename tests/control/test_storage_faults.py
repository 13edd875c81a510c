"""A study's database that is locked, stopped, restarted or slow is waited out."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from composed import composed_in
from sqlalchemy.exc import OperationalError

from duqsweep import files
from duqsweep.control.config.space import Space
from duqsweep.control.study import patient_storage
from duqsweep.control.study.optuna_study import FinishedTrial, OptunaStudy, open_study
from duqsweep.control.study.patient_storage import PatientStorage
from duqsweep.errors import ConfigError

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
WRITES = ("create_new_study", "create_new_trial", "set_trial_state_values", "set_trial_param")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_storage, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(patient_storage, "LONGEST_PAUSE_S", 0.2)


def opened(directory: Path, *overrides: str) -> OptunaStudy:
    directory.mkdir(exist_ok=True)
    config = composed_in(directory, "+sweep=dit_speed", "enqueue=[reference]", *overrides)
    return open_study(config, Space.from_config(config))


def play(study: OptunaStudy, count: int) -> None:
    for _ in range(count):
        trial = study.ask()
        assert trial is not None
        steps = trial.params.get("policy.num_steps", 10)
        study.tell(trial.number, (1 - 1 / (1 + steps), float(steps)), {})


def undisturbed(directory: Path, count: int) -> list[FinishedTrial]:
    study = opened(directory)
    play(study, count)
    return study.history()


@pytest.mark.fault("database of the study locked", "waits with back-off, one line")
def test_a_locked_database_is_waited_out_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = opened(tmp_path / "a", f"storage.url='sqlite:///{path}?timeout=0.05'")
    play(study, 2)
    said: list[str] = []
    locker = sqlite3.connect(path, check_same_thread=False)
    locker.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(1.0, locker.rollback)
    release.start()
    with files.waiting_out(said.append):
        play(study, 2)
    release.join()
    locker.close()
    assert study.history() == undisturbed(tmp_path / "b", 4)
    assert [line.split("; ")[-1].split(" ")[-1] for line in said] == ["again", "again"]
    assert "database is locked; waiting until it works again" in said[0]


def test_without_a_running_sweep_a_locked_database_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = opened(tmp_path / "a", f"storage.url='sqlite:///{path}?timeout=0.05'")
    locker = sqlite3.connect(path)
    locker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError, match=r"cannot use storage\.url .*database is locked"):
        study.ask()
    locker.close()


def test_a_mistake_in_what_is_asked_of_the_database_is_not_waited_out(tmp_path: Path) -> None:
    storage = PatientStorage(optuna.storages.get_storage(f"sqlite:///{tmp_path}/study.db"), "")
    with files.waiting_out(print), pytest.raises(KeyError):
        storage.get_study_id_from_name("no such study")


class LosesAnswers:
    """Carries out every write, and loses the answer to every other one."""

    def __init__(self) -> None:
        self._storage = optuna.storages.InMemoryStorage()
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._storage, name)
        if name not in WRITES:
            return act

        def acted(*arguments: Any) -> Any:
            answer = act(*arguments)
            self.writes += 1
            if self.writes % 2:
                raise OperationalError("COMMIT", {}, Exception("server closed the connection"))
            return answer

        return acted


@pytest.mark.fault("database's answer lost after it carried out a write", "the write counts once")
def test_a_write_whose_answer_was_lost_is_not_carried_out_twice() -> None:
    lossy = LosesAnswers()
    storage = PatientStorage(lossy, "")  # type: ignore[arg-type]
    with files.waiting_out(lambda line: None):
        study = optuna.create_study(storage=storage, study_name="lossy")
        for value in (1.0, 2.0, 3.0):
            study.enqueue_trial({"x": value})
        for _ in range(3):
            trial = study.ask()
            study.tell(trial, trial.suggest_float("x", 0.0, 9.0))
    assert [trial.value for trial in study.trials] == [1.0, 2.0, 3.0]
    assert lossy.writes >= 10


class Server:
    """A private PostgreSQL on loopback."""

    def __init__(self, folder: Path) -> None:
        assert BINARIES is not None
        self._data = folder / "data"
        # PostgreSQL refuses to run as root.
        self._user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self._run("initdb", "-D", str(self._data), "-U", "sweep", "-A", "trust", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://sweep:hidden@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        assert BINARIES is not None
        command = [str(BINARIES / program), *words]
        subprocess.run(
            command, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60, **self._user
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg2", reason="needs pip install duqsweep[postgresql]")
    if BINARIES is None:
        pytest.skip("needs a PostgreSQL server (Debian's postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="duqsweep-postgresql-"))
    server = Server(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.mark.fault("PostgreSQL stopped, restarted, slow", "waits; the same study as undisturbed")
def test_postgresql_that_is_stopped_restarted_and_slow_is_waited_out(
    server: Server, tmp_path: Path
) -> None:
    import psycopg2

    study = opened(tmp_path / "a", f"storage.url='{server.url}'")
    play(study, 2)
    said: list[str] = []
    with files.waiting_out(said.append):
        server.stop()
        back = threading.Timer(1.0, server.start)
        back.start()
        play(study, 2)  # stopped
        back.join()
        assert len(said) == 2
        assert said[0].endswith("; waiting until it works again")
        assert said[1].endswith(" works again")
        server.stop()
        server.start()
        play(study, 2)  # restarted between two calls: its connections are made anew
        slow = psycopg2.connect(server.url.replace("+psycopg2", ""))
        slow.cursor().execute("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE")
        release = threading.Timer(1.0, slow.rollback)
        release.start()
        play(study, 1)  # slow
        release.join()
        slow.close()
    assert study.history() == undisturbed(tmp_path / "b", 7)
    assert not [line for line in said if "hidden" in line]


@pytest.mark.fault(
    "folder of a sweep with `storage.url` moved",
    "one line names `storage.moved_from`, which resumes it",
)
def test_a_sweep_whose_folder_was_moved_takes_its_study_along(tmp_path: Path) -> None:
    url = f"storage.url=sqlite:///{tmp_path}/study.db"
    study = opened(tmp_path / "old", url)
    play(study, 3)
    told = study.history()
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(ConfigError, match=r"add storage\.moved_from='.*/old'"):
        opened(tmp_path / "new", url)
    with pytest.raises(ConfigError, match="already holds a sweep"):
        opened(tmp_path / "new", url, f"storage.moved_from={tmp_path}/elsewhere")
    assert opened(tmp_path / "new", url, f"storage.moved_from={tmp_path}/old").history() == told
    assert opened(tmp_path / "new", url).history() == told  # said once
