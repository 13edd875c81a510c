"""Which files a suite needs and what is in them: a list with hashes, held against a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Manifest:
    """The files of some suites; paths are relative and have forward slashes."""

    suites: dict[str, list[str]]  # suite → paths
    files: dict[str, str]  # path → SHA-256 of its content

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest in a JSON file with the keys `suites` and `files`."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["suites"], content["files"])

    @classmethod
    def of_folder(cls, folder: Path, suites: dict[str, Iterable[str]]) -> Manifest:
        """The manifest of the files that lie in `folder` now."""
        sorted_suites = {suite: sorted(names) for suite, names in suites.items()}
        names = sorted({name for listed in sorted_suites.values() for name in listed})
        return cls(sorted_suites, {name: sha256(folder / name) for name in names})

    def text(self) -> str:
        """What `read` reads: a line per file."""
        return json.dumps({"suites": self.suites, "files": self.files}, indent=0) + "\n"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
