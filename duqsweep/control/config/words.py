"""Quotes the words of a command line that Hydra's grammar cannot read otherwise."""

from __future__ import annotations

import re

_ASSIGNMENT = re.compile(r"(\+{0,2}[\w./@-]+=)(.*)", re.DOTALL)
# Lists, mappings, quoted words and functions have their own grammar; Hydra reports mistakes there.
_STRUCTURED = re.compile(r"\s*(?:[\[{'\"]|[A-Za-z_]+\()")

# Options of sbatch, of which any may be added, and whose commas are no choice.
_OPTIONS = re.compile(r"launcher\.(controller\.)?additional_parameters[.=]")
_FOR_SBATCH = re.compile(r"\+{0,2}launcher\.")


def in_hydras_grammar(word: str) -> str:
    """`dir=/data/a&b` with its value quoted; a word that Hydra reads is left alone.

    Hydra does not read paths such as `~/pi05`, nor names with # & = or letters beyond ASCII, and
    takes `launcher.partition=gpu,long` for two runs.
    """
    if _OPTIONS.match(word):
        word = f"++{word}"
    found = _ASSIGNMENT.fullmatch(word)
    if not found or _STRUCTURED.match(found[2]):
        return word
    if _is_read(word) and not ("," in found[2] and _FOR_SBATCH.match(word)):
        return word
    escaped = re.sub(r"(\\+)(?=\"|$)", r"\1\1", found[2]).replace('"', '\\"')
    return f'{found[1]}"{escaped}"'


def _is_read(word: str) -> bool:
    # Hydra takes long to import, and only what composes a configuration needs it.
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
