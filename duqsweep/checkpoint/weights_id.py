"""What identifies a policy's weights: a hash of its files, by several threads."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from duqsweep.background import in_background
from duqsweep.checkpoint.locate import WEIGHTS, checkpoint_dir
from duqsweep.spec import PolicySpec

HASHED = ("*.safetensors", "*.json", "assets/**/*.json", "*.model")
PIECE_MB = 64  # hashed by one thread
BLOCK_MB = 1  # read at once
READERS = 8  # threads that read files, at most: more read no faster


_begun: tuple[tuple[str, str | None, str | None], Future[str]] | None = None  # whose, and its id


def begin_to_identify(spec: PolicySpec) -> Future[str]:
    """Begin to compute `weights_id`, unless that has begun; see `forget_identity`."""
    global _begun
    named = spec.name, spec.checkpoint, spec.tokenizer
    if _begun is None or _begun[0] != named:
        _begun = named, in_background(lambda: weights_id(spec))
    return _begun[1]


def forget_identity() -> None:
    """What has begun is used up: the next time, the files are read again."""
    global _begun
    _begun = None


def weights_id(spec: PolicySpec) -> str:
    """First 16 hex digits of a hash of all bytes of the policy's files: what packs are keyed by.

    It is the SHA-256 of the SHA-256 of each piece of `PIECE_MB`: one core hashes 2 GB a second, and
    a pi0.5 has 7.
    """
    pieces = [
        (path, start)
        for path in _files(spec)
        for start in range(0, path.stat().st_size, PIECE_MB << 20)
    ]
    with ThreadPoolExecutor(reader_threads()) as readers:
        digests = readers.map(_piece_digest, pieces)
        return hashlib.sha256(b"".join(digests)).hexdigest()[:16]


def reader_threads() -> int:
    """How many threads read a checkpoint's files here."""
    return min(READERS, len(os.sched_getaffinity(0)))


def _piece_digest(piece: tuple[Path, int]) -> bytes:
    path, start = piece
    sha, block = hashlib.sha256(), bytearray(BLOCK_MB << 20)
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        left = PIECE_MB << 20
        while left and (count := file.readinto(memoryview(block)[: min(left, len(block))])):
            sha.update(memoryview(block)[:count])
            left -= count
    return sha.digest()


def _files(spec: PolicySpec) -> list[Path]:
    folder = checkpoint_dir(spec)
    if spec.name == "embedded":
        return [folder / WEIGHTS]
    named = [] if spec.tokenizer is None else [Path(spec.tokenizer)]
    return [path for pattern in HASHED for path in sorted(folder.glob(pattern))] + named
