"""The prompt of pi0.5 as token ids, by PaliGemma's sentencepiece model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duqsweep.checkpoint.io_spec import STATE_BINS
from duqsweep.errors import ConfigError, EvaluationError

# PaliGemma's model has Gemma's pieces, and 1,152 for places and outlines behind them, which no
# prompt of pi0.5 uses. Source: PaliGemma, arXiv:2407.07726, section 3.1.
GEMMA_PIECES = 256_000
SPECIAL_IDS = (0, 1, 2, 3)  # pad, eos, bos, unk of Gemma and PaliGemma
PROBE = "Task: pick up the bowl, State: 0 64 128 255 -1;\nAction: "
NAMES = ("paligemma_tokenizer.model", "tokenizer.model")  # looked for in a checkpoint's folder


class PromptTokenizer:
    """Instruction, and the state where the policy reads it there, to token ids.

    Source: openpi, src/openpi/models/tokenizer.py, PaligemmaTokenizer; LeRobot writes the same text
    (lerobot 0.6.1, policies/pi05/processor_pi05.py).
    """

    def __init__(self, path: Path, vocabulary: int, longest: int, fewest: int = 1) -> None:
        """Read a sentencepiece model.

        Args:
            path: The model's file.
            vocabulary: Embeddings of the policy.
            longest: Tokens that a prompt may have.
            fewest: Pieces that the model has at least.

        Raises:
            ConfigError: It is no such file, or not this policy's.
        """
        import sentencepiece  # takes long to import

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"{path} is not a sentencepiece model: {error}") from error
        fault = self._fault(vocabulary, fewest)
        if fault:
            raise ConfigError(f"{path} is not the policy's tokenizer: {fault}")
        self._longest = longest

    def _fault(self, vocabulary: int, fewest: int) -> str:
        """Why this is not the tokenizer that the policy was trained with; empty if it may be."""
        model = self._model
        pieces = model.get_piece_size()
        if not fewest <= pieces <= vocabulary:
            at_least = f"; at least {fewest} are needed" if pieces < fewest else ""
            return f"it has {pieces} pieces for {vocabulary} embeddings{at_least}"
        special = (model.pad_id(), model.eos_id(), model.bos_id(), model.unk_id())
        if special != SPECIAL_IDS:
            return f"its ids of pad, eos, bos and unk are {special}, PaliGemma's are {SPECIAL_IDS}"
        ids = model.encode(PROBE)
        if model.unk_id() in ids or model.decode(ids) != PROBE:
            return f"it reads the prompt {PROBE!r} as {model.decode(ids)!r}"
        return ""

    def with_state(self, instruction: str, state: NDArray[np.float64]) -> NDArray[np.int64]:
        """Ids of the instruction and the bins of the normalised state."""
        bins = " ".join(str(number) for number in state_bins(state))
        return self._ids(f"Task: {_cleaned(instruction)}, State: {bins};\nAction: ", "")

    def without_state(self, instruction: str) -> NDArray[np.int64]:
        """Ids of the instruction and of the line break that asks for an answer."""
        return self._ids(_cleaned(instruction), "\n")

    def _ids(self, text: str, end: str) -> NDArray[np.int64]:
        ids = [*self._model.encode(text, add_bos=True), *self._model.encode(end)]
        if len(ids) > self._longest:
            raise EvaluationError(
                f"the policy reads {self._longest} tokens, the prompt {text!r} has {len(ids)}"
            )
        return np.array(ids, dtype=np.int64)


def find_tokenizer(folder: Path, named: str | None) -> Path:
    """The sentencepiece file of a checkpoint.

    Args:
        folder: The checkpoint's.
        named: `policy.tokenizer`; None: the file is looked for in the folder.

    Raises:
        ConfigError: There is none.
    """
    if named is not None:
        if not Path(named).is_file():
            raise ConfigError(f"policy.tokenizer must be a sentencepiece file, none at {named}")
        return Path(named)
    for name in NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"checkpoint {folder} has no {' or '.join(NAMES)}: set policy.tokenizer=FILE to "
        "PaliGemma's sentencepiece model (openpi keeps it in its cache; "
        "gs://big_vision/paligemma_tokenizer.model)"
    )


def state_bins(state: NDArray[np.float64]) -> list[int]:
    """One of 256 bins over [-1, 1] for each value: -1 for one below, the last for one above."""
    edges = np.linspace(-1, 1, STATE_BINS + 1)[:-1]
    return [int(number) for number in np.digitize(state, edges) - 1]


def _cleaned(instruction: str) -> str:
    return instruction.strip().replace("_", " ").replace("\n", " ")
