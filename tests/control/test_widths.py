"""Every screen at the widths that terminals have."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from synthetic_sweep import OBJECTIVES, write_sweep

from duqsweep.control.front.content import compute_front
from duqsweep.control.front.records import Front
from duqsweep.control.report.report import print_front
from duqsweep.control.view.console import LOG_WIDTH, open_console


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Front:
    sweep_dir = write_sweep(tmp_path_factory.mktemp("wide") / "dit_speed", 13, 6)
    return compute_front(sweep_dir, OBJECTIVES)


def printed(front: Front, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_front(front, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_setting_of_a_front_is_cut_off(front: Front, width: int) -> None:
    text = printed(front, width)
    assert max(map(len, text.splitlines())) <= width
    for point in front.members:
        for setting in (f"num_steps={point.num_steps}", f"w_bits={point.params[BITS]}"):
            assert setting in text, text


BITS = "quant.weight_bits.default"


def test_a_front_of_any_width_is_printed(front: Front) -> None:
    for width in (1, 5, 20, 60):
        assert printed(front, width)


@pytest.mark.parametrize(("columns", "width"), [("91", 91), ("", LOG_WIDTH), ("wide", LOG_WIDTH)])
def test_columns_sets_the_width_of_a_pipe(columns: str, width: int, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("os.isatty", lambda descriptor: False)
    assert open_console(io.StringIO()).width == width
