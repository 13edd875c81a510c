"""A controller for tests to kill: submits two long assignments and polls without end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from light_lab import Lab

from duqsweep.control.dispatch.dispatcher import Assignment

EPISODES = 8
EPISODE_S = 0.25


def main(launcher: str, folder: str) -> None:
    lab = Lab(launcher, Path(folder))
    dispatcher = lab.open(idle_s=1.0)
    for number in range(2):
        lab.trial(number, episode_s=EPISODE_S)
        dispatcher.submit(Assignment(number, EPISODES))
    while True:
        dispatcher.poll()
        time.sleep(0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
