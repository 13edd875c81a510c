"""Runs commands in places that refuse them: a program of its own, because of what it mounts.

    python places.py TEMPLATE

Each line of standard input is a request: a place, an output, its encoding and commands. Each
command runs in a process of its own, in a fresh copy of TEMPLATE, which is its working directory,
and writes to that output. The line that answers has, for each command, its exit code, what it wrote
to standard output and standard error, and the files that it left behind or changed; it is `null`
where this machine has no means for such a place.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
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


CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000  # unshare(2)
CAPABILITIES_V3 = 0x20080522  # capset(2)
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # what lets the administrator do everything


def own_mounts() -> None:
    """Let this process mount what no other sees, as the administrator of a namespace."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    mount("--make-rprivate", "/")
    with tempfile.TemporaryDirectory() as name:
        mount("-t", "tmpfs", "none", name)
        subprocess.run(["umount", name], check=True)


def no_privileges() -> None:
    """Hold this process to the rights of files, also where it runs as the administrator."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high ones
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for i in range(3):
        sets[i] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


# What the process of a place's commands does first.
PREPARATIONS: dict[str, Callable[[], None]] = {
    "usual": lambda: None,
    "read-only": own_mounts,
    "full": own_mounts,
    "forbidden": no_privileges,
    "unreadable": no_privileges,
}


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


def answer(place: str, output: str, encoding: str, commands: list[list[str]], template: Path):
    """What each command answers; None where the place cannot be had."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=encoding)
    try:
        PREPARATIONS[place]()
    except (OSError, subprocess.CalledProcessError):
        return None
    answers = []
    for words in commands:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name) / "place"
            folder.mkdir()
            PLACES[place](template, folder)
            answers.append(run(words, folder, output))
            if PREPARATIONS[place] is own_mounts:
                subprocess.run(["umount", str(folder)], check=True)
            for path in [folder, *folder.rglob("*")]:  # so that it can be removed
                path.chmod(0o755)
    return answers


# What some command imports when it runs.
LATE = (
    "duqsweep.control.dispatch.inline",
    "duqsweep.control.dispatch.pool",
    "duqsweep.control.kghv.importances",
    "duqsweep.control.report.report",
    "duqsweep.control.study.early_stopping",
    "duqsweep.control.study.optuna_study",
    "duqsweep.control.study.search",
    "duqsweep.control.tracking.mirror",
    "matplotlib.figure",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "scipy.stats",
)


def load() -> None:
    """Import and compose once for all commands, whose processes are copies of this one."""
    from kept_configurations import keep

    import duqsweep.worker.evaluate  # noqa: F401
    from duqsweep.cli import VERBS
    from duqsweep.control.config.sweep_config import compose
    from duqsweep.control.tracking.mlflow_client import import_client

    keep()
    import_client()
    for name in (*(f"duqsweep.verbs.{verb}" for verb in ("sweep", *VERBS)), *LATE):
        importlib.import_module(name)
    compose(["+sweep=smoke"])
    gc.collect()
    gc.freeze()  # or each copy would copy the memory of all objects when it looks at them


def main() -> None:
    template = Path(sys.argv[1])
    load()
    for line in sys.stdin:
        request, (reader, writer) = json.loads(line), os.pipe()
        if os.fork() == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(answer(**request, template=template), pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            print(pipe.read(), flush=True)
        os.wait()


if __name__ == "__main__":
    main()
