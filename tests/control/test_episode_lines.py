"""`export --format episodes`: every episode, read back as it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from synthetic_sweep import make_episodes, make_result, make_trial, write_trial

from duqsweep.control.episode_lines import EpisodeLine, episode_lines
from duqsweep.control.trials.reader import read_trials
from duqsweep.errors import SpecError
from duqsweep.result import EpisodeRecord


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (3, 7):
        episodes = make_episodes(number, 12, 0.8)
        broken = dataclasses.replace(episodes[5], success=False, error="RenderError: no “context”")
        retried = [*episodes[:5], broken, dataclasses.replace(episodes[5], attempt=1)]
        written = [*retried, *episodes[6:]]
        write_trial(tmp_path, make_trial(number), None, written, make_result(episodes))
    return tmp_path


def test_episodes_are_read_back_as_they_were(folder):
    views = read_trials(folder)
    lines = [EpisodeLine.parse(text) for text in episode_lines(views, "search")]
    assert [(line.trial, line.episode) for line in lines] == [
        (view.number, episode) for view in views for episode in view.episodes
    ]
    assert {line.fingerprint for line in lines} == {view.trial.fingerprint for view in views}
    assert lines[5].episode.attempt == 1  # the retry stands for the error


def test_each_line_is_one_flat_object_with_the_documented_keys(folder):
    (first, *_) = episode_lines(read_trials(folder), "reserved")
    data = json.loads(first)
    keys = {field.name for field in dataclasses.fields(EpisodeRecord)}
    assert set(data) == keys | {"trial", "fingerprint", "states"}
    assert not any(isinstance(value, (dict, list)) for value in data.values())
    document = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in document for key in data)


def test_a_line_of_something_else_is_refused():
    with pytest.raises(SpecError, match="lacks the key"):
        EpisodeLine.parse('{"trial": 1, "fingerprint": "0", "states": "search"}')
