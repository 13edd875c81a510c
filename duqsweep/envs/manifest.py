"""Which files a suite needs and what is in them: a list with hashes, held against a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HASH_DIGITS = 16  # of SHA-256, in hexadecimal


@dataclass(frozen=True)
class Manifest:
    """The files of some suites; paths are relative and have forward slashes."""

    files: dict[str, str]  # path → the first `HASH_DIGITS` digits of its SHA-256
    suites: dict[str, list[str]]  # suite → paths

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest in a JSON file with the keys `files` and `suites`."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["files"], content["suites"])

    @classmethod
    def of_folder(cls, folder: Path, suites: dict[str, Iterable[str]]) -> Manifest:
        """The manifest of the files that lie in `folder` now."""
        sorted_suites = {suite: sorted(names) for suite, names in suites.items()}
        names = sorted({name for listed in sorted_suites.values() for name in listed})
        return cls({name: content_hash(folder / name) for name in names}, sorted_suites)

    def text(self) -> str:
        """What `read` reads: a line per file."""
        return json.dumps({"files": self.files, "suites": self.suites}, indent=0) + "\n"


def content_hash(path: Path) -> str:
    """The first `HASH_DIGITS` digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:HASH_DIGITS]
