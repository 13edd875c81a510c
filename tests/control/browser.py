"""Headless Chromium, and MLflow's own UI for it to look at; also a command that takes pictures.

    python tests/control/browser.py SWEEP_DIR OUT_DIR

writes OUT_DIR/{sweep,trials,compare,report}.png of a sweep with MLflow's database in its folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import pytest

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
BUDGET_MS = 60_000  # of virtual time: the page's timers run ahead, so this takes seconds


def chromium() -> str:
    """The browser's path; skips the test without one, unless DUQSWEEP_REQUIRE_BROWSER=1."""
    found = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if found is None and os.environ.get("DUQSWEEP_REQUIRE_BROWSER") == "1":
        pytest.fail("DUQSWEEP_REQUIRE_BROWSER=1, and there is no Chromium")
    return found or pytest.skip("no Chromium here")


def _run(url: str, *options: str, budget_ms: int | None = BUDGET_MS) -> str:
    command = [chromium(), *QUIET, f"--user-data-dir={_profile().name}"]
    command += [] if budget_ms is None else [f"--virtual-time-budget={budget_ms}"]
    done = subprocess.run(
        [*command, *options, url], capture_output=True, text=True, timeout=180, check=True
    )
    return done.stdout


@cache
def _profile() -> tempfile.TemporaryDirectory[str]:
    """One for all starts: MLflow's pages are fetched and compiled once, 2 CPU seconds each."""
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def screenshot(url: str, path: Path, width: int = 1900, height: int = 1200) -> None:
    _run(url, f"--window-size={width},{height}", f"--screenshot={path}")


def page_text(url: str) -> str:
    """The page's HTML after its scripts have run."""
    return _run(url, "--window-size=1900,1600", "--dump-dom")


def examine(harness: Path, frames: Mapping[str, tuple[Path, int]], checks: str) -> Any:
    """What a script finds out about pages in frames of given widths; one start of the browser.

    Args:
        harness: The page that holds the frames, written here.
        frames: Name → a page's file, and the width of its frame in pixels. They load one after
            another.
        checks: JavaScript, run when all are loaded: `frames.NAME` is a window, `loaded_ms.NAME` how
            long it took until the page was laid out. What it puts into `found` is returned.
    """
    listed = json.dumps([[name, path.as_uri(), width] for name, (path, width) in frames.items()])
    harness.write_text(f"""<!doctype html><pre id="found"></pre><script>
        const frames = {{}}, loaded_ms = {{}}, found = {{}};
        const left = {listed};
        function next() {{
          if (!left.length) {{ check(); return; }}
          const [name, url, width] = left.shift();
          const frame = document.createElement("iframe");
          Object.assign(frame, {{ src: url, width, height: 900 }});
          frame.style.border = "none";
          frame.onload = () => {{
            frames[name] = frame.contentWindow;
            frames[name].document.documentElement.getBoundingClientRect();
            loaded_ms[name] = frames[name].performance.now();
            next();
          }};
          document.body.append(frame);
        }}
        function check() {{
          try {{ {checks} }} catch (error) {{ found.error = String(error.stack); }}
          document.getElementById("found").textContent = JSON.stringify(found);
        }}
        document.addEventListener("DOMContentLoaded", next);
    </script>""")
    size = "--window-size=1900,1200"
    options = (size, "--allow-file-access-from-files", "--dump-dom")
    dom = _run(harness.as_uri(), *options, budget_ms=None)  # real time: it is measured
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert text is not None, dom[:2000]
    return json.loads(unescape(text[1]))


@contextmanager
def mlflow_ui(uri: str, folder: Path) -> Iterator[str]:
    """MLflow's server on a free port; its whole process group ends with the block.

    It is what `mlflow ui` starts, without the process that starts it and loads MLflow once more.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "mlflow.server.fastapi_app:app"]
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "mlflow-ui.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=os.environ | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_until_healthy(base, server)
            yield base
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _wait_until_healthy(base: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("mlflow ui did not answer; see mlflow-ui.log")


def sweep_pages(sweep_dir: Path, base: str) -> dict[str, str]:
    """The addresses that a sweep's last lines print, served at `base`."""
    from duqsweep.control.tracking.links import links

    lines = [line.split(maxsplit=1) for line in links(sweep_dir)]
    pages = {name.rstrip(":"): url.replace("http://127.0.0.1:5000", base) for name, url in lines}
    pages.pop("MLflow", None)  # the command, not a page
    return pages | {"report": (sweep_dir / "report.html").absolute().as_uri()}


if __name__ == "__main__":
    sweep, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    with mlflow_ui(f"sqlite:///{(sweep / 'mlflow.db').absolute()}", out) as address:
        for page, link in sweep_pages(sweep, address).items():
            screenshot(link, out / f"{page}.png")
            print(out / f"{page}.png")
