"""Print what `measure.py` wrote as a Markdown table, one row a configuration.

python examples/embedded_policy/table.py FILE.jsonl ...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from duqsweep.control.front.intervals import wilson


def rate(records: list[dict[str, Any]]) -> str:
    """`19/20`."""
    return f"{sum(record['success'] for record in records)}/{len(records)}"


def row(name: str, records: list[dict[str, Any]], tasks: list[int]) -> str:
    """One configuration: each task, all of them with interval, and the mean steps of successes."""
    cells = [rate([record for record in records if record["task"] == task]) for task in tasks]
    won = [record for record in records if record["success"]]
    low, high = wilson(len(won), len(records))
    steps = sum(record["steps"] for record in won) / max(len(won), 1)
    total = f"{len(won)}/{len(records)} = {100 * len(won) / len(records):.1f} %"
    return (
        f"| {name} | {' | '.join(cells)} | {total} | {100 * low:.1f} to {100 * high:.1f} "
        f"| {steps:.0f} |"
    )


def main() -> None:
    """Read all files; an episode that was played twice counts once."""
    found: dict[str, dict[tuple[int, int], dict[str, Any]]] = {}
    for path in sys.argv[1:]:
        for line in Path(path).read_text().splitlines():
            record = json.loads(line)
            if not record["error"]:
                episodes = found.setdefault(record["config"], {})
                episodes[record["task"], record["state"]] = record
    tasks = sorted({task for episodes in found.values() for task, _ in episodes})
    heads = ["configuration", *(f"task {task}" for task in tasks), "all", "95 %", "steps"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, episodes in found.items():
        print(row(name, list(episodes.values()), tasks))


if __name__ == "__main__":
    main()
