"""A `light_environment` whose module starts a thread as it is imported, as some drivers do."""

from __future__ import annotations

import threading
import time

from light_environment import LightEnvironment, open_light

from duqsweep.spec import SuiteSpec

OPENER = "threaded_environment:open_threaded"

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def open_threaded(suite: SuiteSpec) -> LightEnvironment:
    return open_light(suite)
