"""What continuous integration plays and a default run leaves out, for its time."""

from __future__ import annotations

import os

import pytest

EXHAUSTIVE = os.environ.get("DUQSWEEP_EXHAUSTIVE") == "1"
exhaustive = pytest.mark.skipif(not EXHAUSTIVE, reason="one of many like it: DUQSWEEP_EXHAUSTIVE=1")
