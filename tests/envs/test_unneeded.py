"""LIBERO is imported without packages that no episode uses, which stay importable."""

from __future__ import annotations

import json
import subprocess
import sys

from duqsweep.envs.unneeded import UNNEEDED

IMPORT = """
import json, sys
from duqsweep.envs.mini.suite import ASSETS
from duqsweep.envs.setup import prepare_libero
{before}
prepare_libero("osmesa", ASSETS)
loaded = [name for name in {names} if name in sys.modules]
import cv2, gymnasium, matplotlib.cm
print(json.dumps([loaded, matplotlib.cm.rainbow(0.0)[0], cv2.CV_8U, gymnasium.Env.__name__]))
"""


def imported(before: str = "") -> list[object]:
    script = IMPORT.format(before=before, names=UNNEEDED)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found: list[object] = json.loads(run.stdout)
    return found


def test_what_no_episode_uses_is_not_loaded_and_can_be_loaded_later():
    assert imported() == [[], 0.5, 0, "Env"]


def test_what_was_loaded_before_stays():
    assert imported("import cv2") == [["cv2"], 0.5, 0, "Env"]
