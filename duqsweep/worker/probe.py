"""What `doctor` runs as a job: it looks at its node as a worker would, and answers through files.

request.json     what to check, written before the job starts
ping-1.json …    written by whoever waits for the job
pong-1.json …    the job's answers, with the time on its node
doing.txt        the check that runs, in case that it ends the job
findings.jsonl   a line per check, as soon as it has an answer; the last is LAST
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duqsweep
from duqsweep.codec import encode
from duqsweep.files import append_line, read_record, write_json, write_text
from duqsweep.mailbox import Mailbox
from duqsweep.spec import PolicySpec, SuiteSpec
from duqsweep.worker.serve import POLL_S, heartbeat

REQUEST_JSON = "request.json"
FINDINGS_JSONL = "findings.jsonl"
DOING_TXT = "doing.txt"
PINGS = 3
LAST = "rendering"  # what is most likely to end a process comes last


@dataclass(frozen=True)
class ProbeRequest:
    """What a node must have for a sweep."""

    version: str  # of duqsweep
    policy: PolicySpec
    suite: SuiteSpec
    has_gpu: bool  # a GPU was asked for
    submits: bool  # jobs could be submitted from here
    addresses: tuple[str, ...]  # URLs that a controller must reach
    wait_s: float  # for pings


@dataclass(frozen=True)
class Finding:
    """The answer to one check."""

    name: str
    is_ok: bool
    text: str  # what was found, or what to do
    is_needed: bool = True  # by every sweep


def ping_file(folder: Path, number: int) -> Path:
    """Written by whoever waits for the job."""
    return folder / f"ping-{number}.json"


def pong_file(folder: Path, number: int) -> Path:
    """The job's answer: `{"time": …}`, Unix time on its node."""
    return folder / f"pong-{number}.json"


def probe(worker_dir: str) -> None:
    """Check what `request.json` of the folder asks for, and write the findings there.

    Args:
        worker_dir: `workers/<id>`, with its `worker.json`.
    """
    mailbox = Mailbox(Path(worker_dir))
    request = read_record(ProbeRequest, mailbox.folder / REQUEST_JSON)
    mailbox.set_alive(heartbeat(time.time(), None))
    _answer_pings(mailbox, request.wait_s)
    for name, check, is_needed in _checks(request):
        if mailbox.asked_to_leave():
            return
        write_text(mailbox.folder / DOING_TXT, name)
        try:
            finding = Finding(name, True, check(), is_needed)
        except Exception as error:  # the other checks run all the same
            text = " ".join(str(error).split()) or type(error).__name__
            finding = Finding(name, False, text, is_needed)
        append_line(mailbox.folder / FINDINGS_JSONL, encode(finding))


def _answer_pings(mailbox: Mailbox, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    for number in range(1, PINGS + 1):
        ping = ping_file(mailbox.folder, number)
        # Listed as a worker lists its inbox: to look for a name that is missing may be cached.
        while ping not in mailbox.folder.glob("ping-*.json"):
            if mailbox.asked_to_leave() or time.monotonic() > deadline:
                return
            time.sleep(POLL_S)
        write_json(pong_file(mailbox.folder, number), {"time": time.time()})


def _checks(request: ProbeRequest) -> list[tuple[str, Callable[[], str], bool]]:
    """Name, check and whether every sweep needs it."""

    def import_all() -> str:
        from duqsweep.worker import node_checks

        if duqsweep.__version__ != request.version:
            raise RuntimeError(
                f"the node has duqsweep {duqsweep.__version__}, here is {request.version}: "
                "launcher.setup must give both the same"
            )
        torch = node_checks.torch_version()
        python = f"Python {platform.python_version()} at {sys.executable}"
        return f"duqsweep {duqsweep.__version__}, torch {torch}, {python}"

    def checked(name: str) -> Callable[[], str]:
        def check() -> str:
            from duqsweep.worker import node_checks

            found: str = getattr(node_checks, name)(request)
            return found

        return check

    gpu = [("gpu", checked("check_gpu"), True)] if request.has_gpu else []
    submits = [("submitting", checked("check_submits"), False)] if request.submits else []
    addresses = [("addresses", checked("check_addresses"), False)] if request.addresses else []
    return [
        ("import", import_all, True),
        ("checkpoint", checked("check_policy"), True),
        ("compiler", checked("check_compiler"), True),
        *gpu,
        *submits,
        *addresses,
        (LAST, checked("check_rendering"), True),
    ]
