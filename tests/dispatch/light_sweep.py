"""`python -m duqsweep` with trials that cost nothing; controllers, workers and jobs are real."""

from __future__ import annotations

import functools
import sys

from light_trials import serve_lightly

from duqsweep import cli
from duqsweep.control.dispatch import pool
from duqsweep.control.report import report

# A sweep of the command without its folder, its budget and its launcher.
WORDS = (
    "name=light",
    "+space={quant.weight_bits.default:'choice(2,3,4,8)',policy.num_steps:'int(interval(1,10))'}",
    "quant.include=dit_all",
    "sampler=random",
    "tracking=none",
    "launcher.jobs=2",
    "launcher.mem_gb=0.5",
    "budget.twins=false",
)


def main(words: list[str]) -> int:
    """Run the command; without pictures, which take longer than everything else."""
    dispatcher, write_report = pool.SubmititDispatcher, report.write_report
    light = functools.partial(dispatcher, entry=serve_lightly)
    pool.SubmititDispatcher = light  # type: ignore[misc,assignment]
    report.write_report = lambda *args: None
    try:
        return cli.main(words)
    finally:
        pool.SubmititDispatcher, report.write_report = dispatcher, write_report  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
