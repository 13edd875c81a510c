"""Refuses settings on the command line that would change no trial."""

from __future__ import annotations

import re
from collections.abc import Sequence

from duqsweep.control.config.settings import setting_of
from duqsweep.control.config.space import Space
from duqsweep.errors import ConfigError

_SETTING = re.compile(r"\+{0,2}([\w.]+)=.*", re.DOTALL)


def given_settings(words: Sequence[str]) -> dict[str, str]:
    """The settings of a trial that `words` give: key → word."""
    found = ((_SETTING.fullmatch(word), word) for word in words)
    given = {match[1]: word for match, word in found if match}
    return {key: word for key, word in given.items() if setting_of(key) is not None}


def check_effect(words: Sequence[str], space: Space) -> None:
    """Raise ConfigError for a setting that no trial of the sweep would have.

    The base's value of a key counts for points of a space that does not search the key (or only
    under a condition), and for plans that do not set it.
    """
    searched = {parameter.key for parameter in space.parameters if parameter.condition is None}
    for key, word in given_settings(words).items():
        in_space = bool(space.parameters) and key not in searched
        if in_space or any(key not in plan for plan in space.plans.values()):
            continue
        reasons = [f"the space searches {key}"] if space.parameters else []
        if space.plans:
            reasons.append(f"every enqueued plan sets it ({', '.join(space.plans)})")
        raise ConfigError(
            f"{word} would change no trial: {' and '.join(reasons)}; "
            f"set space.{key}=… instead, or evaluate --plan NAME {word}"
        )
