"""Makes LIBERO importable without questions, and quiet; must run before robosuite is imported."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from duqsweep import files, private
from duqsweep.envs.assets import libero_root
from duqsweep.envs.rendering import OSMESA
from duqsweep.envs.unneeded import left_out

log = logging.getLogger(__name__)


def prepare_libero(renderer: str, assets: Path) -> None:
    """Set what LIBERO, robosuite, MuJoCo and Mesa read from the environment, and import LIBERO.

    Environment variables are the only way to tell these libraries which renderer to load, where
    the configuration is (else the first import asks on stdin), and to render on one core.
    """
    os.environ["MUJOCO_GL"] = renderer
    os.environ["PYOPENGL_PLATFORM"] = renderer
    os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa draws in the thread that asks
    os.environ["LIBERO_CONFIG_PATH"] = str(_write_config())
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    with quiet(), left_out():
        import libero.libero

        libero.libero._assets_path_cache = str(assets)  # the configuration's `assets` is not read
        import libero.libero.envs

        if renderer == OSMESA:
            from duqsweep.envs.osmesa_context import share_context  # imports robosuite

            share_context()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep libraries' prints off our stdout (they go to the log at DEBUG), and their warnings."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for line in printed.getvalue().splitlines():
            log.debug("%s", line)


def _write_config() -> Path:
    """Write LIBERO's config.yaml, one folder per installation; its own first import would ask.

    The file says where LIBERO finds what it reads. So nobody else may be able to write it.
    """
    root = libero_root()
    name = hashlib.sha256(str(root).encode()).hexdigest()[:8]
    folder = private.cache_folder(f"libero-{name}")
    config = {
        "benchmark_root": str(root),
        "bddl_files": str(root / "bddl_files"),
        "init_states": str(root / "init_files"),
        "datasets": str(folder / "datasets"),
        "assets": str(root / "assets"),
    }
    files.write_text(folder / "config.yaml", json.dumps(config))  # JSON is YAML
    return folder
