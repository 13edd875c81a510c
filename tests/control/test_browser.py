"""What a user sees in a real browser of MLflow's pages of a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser import mlflow_ui, page_text, sweep_pages
from synthetic_sweep import OBJECTIVES, write_sweep

from duqsweep.control.front.content import compute_front
from duqsweep.control.report.report import write_report
from duqsweep.control.tracking.mirror import mirror
from duqsweep.control.tracking.mlflow_client import default_uri
from duqsweep.control.trials.reader import read_trials

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    sweep_dir = write_sweep(tmp_path_factory.mktemp("seen") / "dit_speed", trials=32, episodes=12)
    views = read_trials(sweep_dir)
    write_report(sweep_dir, compute_front(sweep_dir, OBJECTIVES, views), views)
    mirror(sweep_dir)
    with mlflow_ui(default_uri(sweep_dir), sweep_dir) as base:
        yield sweep_pages(sweep_dir, base)


def test_sweeps_page_shows_its_answer_and_its_children(pages: dict[str, str]) -> None:
    text = page_text(pages["sweep"])
    assert "dit_speed" in text
    assert "Verdict: " in text
    assert re.search(r"trial 31\b", text)


def test_trials_page_is_a_table_with_what_was_measured(pages: dict[str, str]) -> None:
    text = page_text(pages["trials"])
    assert re.search(r"trial 31\b", text)
    for column in ("duqsweep.front", "success_rate", "success_low", "episode_time_s", "num_steps"):
        assert f">{column}<" in text
    assert re.search(r"32\D{0,40}matching runs", text)


CHART = 'title="episode_time_s vs. success_rate"'  # the card of the chart


def test_the_shared_view_opens_on_the_front(pages: dict[str, str]) -> None:
    text = page_text(pages["front"])
    for _ in range(2):  # on a busy machine the page's virtual time may end before its charts
        text = text if CHART in text else page_text(pages["front"])
    assert CHART in text
    assert "The front of dit_speed" in text  # the name of the view
    assert re.search(r"32\D{0,40}matching runs", text)


def test_compare_page_opens_on_the_front(pages: dict[str, str]) -> None:
    text = page_text(pages["compare"])
    assert re.search(r"Comparing \d+ Runs from 1 Experiment", text)
    assert "num_steps" in text
