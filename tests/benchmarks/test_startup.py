"""The start-up benchmark: what it reads from a sweep's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import startup

LOG = """2026-11-29 13:22:12,748 INFO duqsweep.worker.evaluate: trial 0: 2 of 2 episodes are left
2026-11-29 13:22:13,084 INFO duqsweep.worker.phases: load: 0.32 s
2026-11-29 13:22:19,041 INFO duqsweep.worker.phases: reference actions: 5.86 s
2026-11-29 13:22:29,041 INFO duqsweep.worker.evaluate: episode 1: 8.00 s
2026-11-29 13:22:30,041 INFO duqsweep.worker.evaluate: episode 0: 9.50 s
"""


def test_the_wait_ends_with_the_begin_of_the_first_episode(tmp_path: Path) -> None:
    trial, claimed = tmp_path / "trials" / "0000", tmp_path / "workers" / "w" / "claimed"
    trial.mkdir(parents=True)
    claimed.mkdir(parents=True)
    (trial / "log.txt").write_text(LOG)
    assignment = claimed / "000001.json"
    assignment.write_text(json.dumps({"trial": 0, "until_episode": 2}))
    assigned = startup.seconds("2026-11-29 13:22:10,000")
    os.utime(assignment, (assigned, assigned))
    twin = {"trial": 0, "until_episode": 0, "part": "twins"}
    (claimed / "000002.json").write_text(json.dumps(twin))
    (row,) = startup.rows_of(tmp_path)
    assert (row["trial"], row["worker"], row["nth"]) == (0, "w", 1)
    assert row["first_episode_s"] == 10.54
    assert row["logs_s"] == 2.75
    assert row["phases_s"] == {"load": 0.32, "reference actions": 5.86}
    assert (row["episodes"], row["has_ended"]) == (0, False)
