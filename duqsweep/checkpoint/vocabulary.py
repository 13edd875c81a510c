"""Whether the embedded policy can read a suite's instructions; needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from duqsweep.checkpoint.embedded_config import read_embedded
from duqsweep.checkpoint.locate import checkpoint_dir
from duqsweep.checkpoint.pi05_config import CONFIG_JSON
from duqsweep.errors import ConfigError
from duqsweep.spec import PolicySpec

NAMED = 5  # unknown words in a message


def check_words(spec: PolicySpec, suite: str, instructions: Iterable[str]) -> None:
    """Raise ConfigError unless the embedded policy knows every word of a suite's instructions.

    It reads word by word and was trained on its own suite; a pi0.5 reads anything.
    """
    if spec.name != "embedded":
        return
    folder = checkpoint_dir(spec)
    config = read_embedded(folder / CONFIG_JSON)
    spoken = [text.lower().split() for text in instructions]
    unknown = sorted({word for words in spoken for word in words} - set(config.words))
    longest = max(map(len, spoken), default=0)
    if not unknown and longest <= config.text_tokens:
        return
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    why = f"does not know {', '.join(unknown[:NAMED])}{more}"
    if not unknown:
        why = f"reads {config.text_tokens} words, and an instruction has {longest}"
    raise ConfigError(
        f"the embedded policy in {folder} cannot read the tasks of {suite}: it {why}; the shipped"
        " one was trained on duq_mini, for others set policy=pi05_libero policy.checkpoint=FOLDER"
    )
