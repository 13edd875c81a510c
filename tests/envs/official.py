"""LIBERO's assets, where they are at hand, and the four official suites with them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from duqsweep.control.config.sweep_config import compose
from duqsweep.spec import ProtocolSpec
from duqsweep.worker.lock import exclusive

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
BESIDE = Path(__file__).parents[3] / "shared" / "libero"  # beside the repository
UNPACK_S = 120.0


def find_official_assets() -> Path:
    """$DUQSWEEP_LIBERO_ASSETS, or what lies beside the repository, unpacked once a machine."""
    named = os.environ.get("DUQSWEEP_LIBERO_ASSETS")
    if named:
        return Path(named)
    if (BESIDE / "unpack.sh").is_file():
        folder = Path(tempfile.gettempdir()) / f"duqsweep-libero-assets-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        with exclusive(folder / "lock", UNPACK_S):
            subprocess.run([BESIDE / "unpack.sh", folder], check=True, timeout=UNPACK_S)
        return folder / "assets_reduced"
    if os.environ.get("DUQSWEEP_REQUIRE_LIBERO") == "1":
        pytest.fail(f"DUQSWEEP_REQUIRE_LIBERO=1, and neither {BESIDE} nor the variable is there")
    pytest.skip("LIBERO's assets: set DUQSWEEP_LIBERO_ASSETS to a folder of them")


def official_protocol(suite: str, assets: Path, image_px: int = 64) -> ProtocolSpec:
    """The shipped protocol of a suite, with pictures that are quick to draw."""
    overrides = [f"suite={suite}", f"suite.image_px={image_px}", f"suite.assets={assets}"]
    config = compose(["name=test", "enqueue=[reference]", *overrides])
    return config.base.protocol
