"""What a default run leaves out, for its time, and DUQSWEEP_EXHAUSTIVE=1 plays."""

from __future__ import annotations

import os

import pytest

EXHAUSTIVE = os.environ.get("DUQSWEEP_EXHAUSTIVE") == "1"
exhaustive = pytest.mark.skipif(not EXHAUSTIVE, reason="one of many like it: DUQSWEEP_EXHAUSTIVE=1")
