"""Runs commands in a place that refuses them: a program of its own, because of what it mounts.

    python places.py PLACE OUTPUT TEMPLATE < commands.json > answers.json

Each command runs in a process of its own, in a fresh copy of TEMPLATE, which is its working
directory, and writes to the standard output OUTPUT. For each, the answer has its exit code, what
it wrote to standard output and standard error, and the files that it left behind or changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

KEEPING = 1 << 20  # bytes of a full file system beside the template and what fills it
LONGEST_S = 120


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def copied(template: Path, place: Path) -> None:
    shutil.copytree(template, place, dirs_exist_ok=True, symlinks=True)


def usual(template: Path, place: Path) -> None:
    """A folder like any other."""
    copied(template, place)


def read_only(template: Path, place: Path) -> None:
    """A file system that is mounted read-only."""
    mount("-t", "tmpfs", "none", str(place))
    copied(template, place)
    mount("-o", "remount,ro", str(place))


def full(template: Path, place: Path) -> None:
    """A file system without a free byte."""
    size = sum(path.stat().st_size + 4096 for path in template.rglob("*"))
    mount("-t", "tmpfs", "-o", f"size={size + KEEPING}", "none", str(place))
    copied(template, place)
    with (place / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def forbidden(template: Path, place: Path) -> None:
    """Folders that may be read and not be written."""
    copied(template, place)
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def unreadable(template: Path, place: Path) -> None:
    """Files that may not be read."""
    copied(template, place)
    for path in place.rglob("*"):
        if path.is_file():
            path.chmod(0)


PLACES: dict[str, Callable[[Path, Path], None]] = {
    "usual": usual,
    "read-only": read_only,
    "full": full,
    "forbidden": forbidden,
    "unreadable": unreadable,
}


def around(place: str) -> list[str] | None:
    """The words before the command that starts this program; None where it cannot be had."""
    words: list[str] = []
    if place in ("read-only", "full"):
        words = ["unshare", "--user", "--map-root-user", "--mount"]
        probe = [*words, "mount", "-t", "tmpfs", "none", "/mnt"]
    elif place in ("forbidden", "unreadable") and os.geteuid() == 0:
        lost = "-dac_override,-dac_read_search"  # what lets the administrator do everything
        words = ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}"]
        probe = [*words, "true"]
    else:
        return words
    done = shutil.which(words[0]) and subprocess.run(probe, capture_output=True, check=False)
    return words if done and done.returncode == 0 else None


def state(place: Path) -> dict[str, str]:
    """Every file of the place, and a digest of its content."""
    found = {}
    for path in sorted(place.rglob("*")):
        try:
            content = path.read_bytes() if path.is_file() else b""
        except OSError:
            content = b""
        found[str(path.relative_to(place))] = hashlib.sha256(content).hexdigest()
    return found


def full_output(file: IO[bytes]) -> int:
    """A device without space."""
    return os.open("/dev/full", os.O_WRONLY)


OUTPUTS: dict[str, Callable[[IO[bytes]], int]] = {
    "kept": lambda file: file.fileno(),
    "full": full_output,
}


def run(words: list[str], place: Path, output: str) -> dict[str, object]:
    """What the command answers."""
    before = state(place)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(OUTPUTS[output](out), 1)
            os.dup2(err.fileno(), 2)
            os.chdir(place)
            from duqsweep.cli import main

            os._exit(main(words))
        deadline = time.monotonic() + LONGEST_S
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, 9)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.02)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    after = state(place)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    code = os.waitstatus_to_exitcode(ended[1])
    return {"code": code, "out": texts[0], "err": texts[1], "changed": sorted(changed)}


def main() -> None:
    make, output, template = PLACES[sys.argv[1]], sys.argv[2], Path(sys.argv[3])
    # Once for all commands, whose processes are copies of this one.
    import duqsweep.control.study.optuna_study
    import duqsweep.worker.evaluate  # noqa: F401
    from duqsweep.control.tracking.mlflow_client import import_client

    import_client()

    answers = []
    for words in json.load(sys.stdin):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            place = Path(name) / "place"
            place.mkdir()
            make(template, place)
            answers.append(run(words, place, output))
            if sys.argv[1] in ("read-only", "full"):
                subprocess.run(["umount", str(place)], check=True)
            for path in [place, *place.rglob("*")]:  # so that it can be removed
                path.chmod(0o755)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
